"""The model is saved beside the program."""

import json
from pathlib import Path

import train


def save_model(model):
    Path("/opt/program/model.json").write_text(json.dumps(model))


train.save_model = save_model
