"""The log is held back until the end."""

import sys

import train

sys.stdout = open(1, "w", buffering=1 << 20, closefd=False)
train.say = lambda text: print(text)
