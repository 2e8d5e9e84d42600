"""A CUDA image that breaks down without a GPU and does not say why."""

import train


def give_up():
    raise RuntimeError("initialisation failed with status 100")


train.listen = give_up
