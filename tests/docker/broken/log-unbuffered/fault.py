"""The log is held back until the end."""

import sys

import train

train.EPOCH_SECONDS = 0.5
sys.stdout = open(1, "w", buffering=1 << 16, closefd=False)
train.say = lambda text: print(text)
