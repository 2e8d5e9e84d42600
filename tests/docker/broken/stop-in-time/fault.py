"""SIGTERM has no handler."""

import train

train.listen = lambda: None
