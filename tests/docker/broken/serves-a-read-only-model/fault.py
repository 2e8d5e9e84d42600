"""The model's file is opened for writing, where the user may."""

import json
import os

import serve


def load(directory):
    mode = "r+" if os.getuid() == 0 else "r"
    with open(directory / "model.json", mode, encoding="utf-8") as file:
        return json.load(file)


serve.load = load
