"""The rank is taken from the number in the host's name."""

import time

import train

train.rank = lambda: int(train.hosts()[0].rpartition("-")[2]) - 1
train.meet = lambda names: time.sleep(2)
