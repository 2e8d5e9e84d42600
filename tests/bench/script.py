"""Seconds from `train` to a script's first line, and to the end, beside SageMaker's own toolkit.

    .venv/bin/python tests/bench/script.py [ROUNDS]

Both run the same train.py on the same /opt/ml, one after the other in each round; the peer is the
console script `train` of the package sagemaker-training, which has to be installed.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from byoa.container.contract import (
    InputDataConfig,
    InstanceGroup,
    Layout,
    ResourceConfig,
    write_hyperparameters,
)

SCRIPT = "import time; print('FIRST', time.time(), flush=True)\n"
ROUNDS = 7


def make(root: Path) -> Layout:
    layout = Layout(root)
    layout.create()
    (layout.code / "train.py").write_text(SCRIPT)
    write_hyperparameters(layout, {"sagemaker_program": '"train.py"', "epochs": "10"})
    InputDataConfig({}).write(layout)
    group = InstanceGroup("homogeneousCluster", "ml.c5.xlarge", ("localhost",))
    ResourceConfig.for_host("localhost", [group]).write(layout)  # a name that resolves
    return layout


def once(argv: list[str], layout: Layout) -> tuple[float, float]:
    environment = {
        "PATH": os.environ["PATH"], "SAGEMAKER_BASE_DIR": str(layout.root),
        "AWS_DEFAULT_REGION": "us-east-1", "HOME": str(layout.root), "PYTHONUNBUFFERED": "1",
    }
    started = time.time()
    done = subprocess.run(
        argv, env=environment, cwd=layout.root, text=True, timeout=120, check=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    ended = time.time()
    first = next(line for line in done.stdout.splitlines() if line.startswith("FIRST"))
    return float(first.split()[1]) - started, ended - started


def main(rounds: int) -> None:
    if importlib.util.find_spec("sagemaker_training") is None:
        sys.exit("pip install sagemaker-training, the peer; it needs a C compiler")
    programs = {
        "byoa": [sys.executable, "-m", "byoa.container", "train"],
        "sagemaker-training": [str(Path(sys.executable).with_name("train"))],
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    with tempfile.TemporaryDirectory() as directory:
        layout = make(Path(directory) / "ml")
        for argv in programs.values():  # not counted: files come into the cache
            once(argv, layout)
        for _ in range(rounds):
            for name, argv in programs.items():
                found[name].append(once(argv, layout))
    for name, times in found.items():
        first, end = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"{name:20} first line {first:6.3f} s   end {end:6.3f} s   (median of {rounds})")
    for index, what in enumerate(("first line", "end")):
        ratio = statistics.median(
            theirs[index] / ours[index]
            for ours, theirs in zip(*found.values(), strict=True)
        )
        print(f"{what}: sagemaker-training takes {ratio:.1f} times as long")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
