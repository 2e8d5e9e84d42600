"""Metrics are written beside the program."""

from pathlib import Path

import train

save = train.save_model


def save_model(model):
    save(model)
    Path("/opt/program/metrics.json").write_text("{}")


train.save_model = save_model
