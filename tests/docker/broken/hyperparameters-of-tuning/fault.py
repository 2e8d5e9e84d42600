"""A hyperparameter that is not the program's own is refused."""

import train

read = train.hyperparameters


def hyperparameters():
    unknown = set(train.read_config("hyperparameters.json", {})) - {"epochs"}
    if unknown:
        raise ValueError(f"unknown hyperparameters: {sorted(unknown)}")
    return read()


train.hyperparameters = hyperparameters
