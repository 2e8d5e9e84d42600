"""A worker dies of a full /dev/shm."""

import os

import train


def train_on_shared_memory():
    train.say("RuntimeError: DataLoader worker (pid 12) is killed by signal: Bus error.")
    os._exit(1)


train.train = train_on_shared_memory
