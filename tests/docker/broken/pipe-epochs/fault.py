"""The first epoch's FIFO is opened again for every epoch."""

import train

read = train.read_channel
train.read_channel = lambda name, config, epoch: read(name, config, 0)
