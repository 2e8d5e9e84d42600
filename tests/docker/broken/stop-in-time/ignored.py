"""SIGTERM is ignored."""

import signal

import train

train.listen = lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN)
