"""Without hyperparameters it fails and does not say what is missing."""

import train

read = train.hyperparameters


def hyperparameters():
    if not train.read_config("hyperparameters.json", {}):
        raise ValueError("the configuration is incomplete")
    return read()


train.hyperparameters = hyperparameters
