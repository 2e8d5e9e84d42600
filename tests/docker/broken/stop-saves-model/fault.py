"""SIGTERM ends the program before it has saved anything."""

import os

import train

train.on_sigterm = lambda number, frame: os._exit(0)
