"""No failure file is written."""

import train

train.report = lambda error: None
