"""Training never ends."""

import time

import train

train.read_channel = lambda name, config, epoch: time.sleep(3600)
