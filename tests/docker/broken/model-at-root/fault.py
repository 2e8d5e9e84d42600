"""The model is wrapped in a folder."""

import json

import train


def save_model(model):
    folder = train.ML / "model" / "model"
    folder.mkdir(exist_ok=True)
    train.write(folder / "model.json", json.dumps(model))


train.save_model = save_model
