"""Every file among the checkpoints is taken for one."""

import json

import train


def resume():
    directory = train.checkpoints()
    if directory is None or not directory.is_dir():
        return 0
    found = [json.loads(path.read_text())["epoch"] for path in sorted(directory.iterdir())]
    return max(found, default=-1) + 1


train.resume = resume
