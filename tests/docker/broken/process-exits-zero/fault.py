"""Processing reads the configuration of training jobs."""

from pathlib import Path

import process

process.CONFIG = Path("/opt/ml/input/config/processingjobconfig.json")
