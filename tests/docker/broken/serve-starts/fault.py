"""The model file has another name than the training program's."""

import json

import serve


def load(directory):
    return json.loads((directory / "weights.json").read_text(encoding="utf-8"))


serve.load = load
