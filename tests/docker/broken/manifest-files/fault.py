"""Whatever is in /opt/ml/input/data is taken for a channel."""

import train


def channels():
    names = sorted(path.name for path in (train.ML / "input" / "data").iterdir())
    if not names:
        raise FileNotFoundError("/opt/ml/input/data is empty")
    return {name: {} for name in names}


train.channels = channels
