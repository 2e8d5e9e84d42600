"""One host against two for mlp-classifier, a core each: seconds an epoch, the final loss, and what
the hosts' meeting and pre-flight take.

    python tests/bench/distributed.py [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from byoa.container.contract import (
    ChannelConfig,
    InputDataConfig,
    Layout,
    ResourceConfig,
    write_hyperparameters,
)

RECORDS, FEATURES, CLASSES, EPOCHS = 20_000, 64, 10, 4
LIMIT = 300.0
SETTINGS = {
    "hidden_units": "[1024, 1024]", "mini_batch_size": "1024", "dropout": "0", "input_noise": "0",
    "epochs": str(EPOCHS), "learning_rate": "0.001",
}


def data() -> np.ndarray:
    lot = np.random.default_rng(0)
    labels = lot.integers(CLASSES, size=RECORDS)
    centres = lot.normal(size=(CLASSES, FEATURES))
    records = centres[labels] + 1.5 * lot.normal(size=(RECORDS, FEATURES))
    return np.column_stack([labels, records]).astype(np.float32)


def train(root: Path, table: np.ndarray, count: int, start: int) -> tuple[float, float, float]:
    """Seconds an epoch, the final loss, seconds of the pre-flight."""
    hosts = tuple(f"127.77.{start}.{number}" for number in range(1, count + 1))
    cores = sorted(os.sched_getaffinity(0))
    started = []
    for index, host in enumerate(hosts):
        layout = Layout(root / host)
        layout.create()
        ResourceConfig(host, hosts, network_interface_name="lo").write(layout)
        InputDataConfig({"train": ChannelConfig()}).write(layout)
        write_hyperparameters(layout, SETTINGS)
        layout.channel("train").mkdir()
        np.save(layout.channel("train") / "data.npy", table)
        started.append(subprocess.Popen(
            ["taskset", "--cpu-list", str(cores[index % len(cores)]),
             sys.executable, "-m", "byoa.container", "train"],
            env={**os.environ, "SAGEMAKER_BASE_DIR": str(layout.root),
                 "BYOA_ALGORITHM": "mlp-classifier", "OMP_NUM_THREADS": "1"},
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ))
    outputs = [process.communicate(timeout=LIMIT)[0] for process in started]
    for process, output in zip(started, outputs, strict=True):
        if process.returncode != 0:
            sys.exit(output)
    lines = (Layout(root / hosts[0]).metrics / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    # The first epoch warms up; its end is where the clock starts.
    seconds = (found[-1]["time"] - found[0]["time"]) / (len(found) - 1)
    flight = re.search(r"pre-flight: .* in ([0-9.]+) s", outputs[0])
    return seconds, found[-1]["value"], float(flight[1]) if flight else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    table = data()
    found: dict[int, list[tuple[float, float, float]]] = {1: [], 2: []}
    for number in range(rounds):  # in turn, so that what disturbs one disturbs the other
        for count in found:
            with tempfile.TemporaryDirectory() as root:
                found[count].append(train(Path(root), table, count, 2 * number + count))
    print(f"mlp-classifier, {RECORDS} records of {FEATURES} features, {SETTINGS['hidden_units']},"
          f" {SETTINGS['mini_batch_size']} a step; best and median of {rounds}")
    for count, runs in found.items():
        times = [each[0] for each in runs]
        print(f"  {count} host(s) of one core: {min(times):.2f} / {statistics.median(times):.2f} s"
              f" an epoch, final loss {runs[-1][1]:.6f}")
    ratios = [one[0] / two[0] for one, two in zip(found[1], found[2], strict=True)]
    print(f"  two hosts are {statistics.median(ratios):.2f} times as fast as one"
          f" ({', '.join(f'{each:.2f}' for each in ratios)})")
    flights = [each[2] for each in found[2]]
    print(f"  meeting and pre-flight of two hosts: {statistics.median(flights):.2f} s, the start of"
          " the later one included")


if __name__ == "__main__":
    main()
