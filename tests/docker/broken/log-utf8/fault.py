"""The log is in Latin-1."""

import os

import train

train.progress = lambda epoch, total: os.write(1, f"Durchgänge={epoch}\n".encode("latin-1"))
