"""Checkpoints are written to /tmp."""

from pathlib import Path

import train

train.checkpoints = lambda: Path("/tmp/checkpoints")
