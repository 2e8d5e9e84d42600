"""Training raises an exception."""

import train


def hyperparameters():
    raise ValueError("shapes (3,4) and (5,) do not fit")


train.hyperparameters = hyperparameters
