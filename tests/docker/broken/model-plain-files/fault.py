"""The model is a link to a file outside /opt/ml/model."""

import json
from pathlib import Path

import train


def save_model(model):
    best = Path("/tmp/best.json")
    best.write_text(json.dumps(model))
    link = train.ML / "model" / "model.json"
    link.unlink(missing_ok=True)
    link.symlink_to(best)


train.save_model = save_model
