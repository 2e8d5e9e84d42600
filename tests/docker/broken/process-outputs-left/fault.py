"""Results go where training leaves its model."""

import process

read = process.write


def write(directory, size):
    model = process.Path("/opt/ml/model")
    model.mkdir(exist_ok=True)
    read(model, size)


process.write = write
