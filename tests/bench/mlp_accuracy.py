"""Accuracy of mlp-classifier with its defaults on handwritten digits, over many splits.

    OMP_NUM_THREADS=1 python tests/bench/mlp_accuracy.py --splits 30 --first 100

Each split trains a job as the entrypoint does, from label-first CSV files, and prints its test
accuracy and seconds; then the least, the mean and the longest. 1,797 records of 8×8 pixels, split
70/15/15 with each class in the same share; `seed` of the algorithm and of the split are the same.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from byoa.algorithms.mlp_classifier import MLPClassifier
from byoa.container.contract import ChannelConfig, InputDataConfig, Layout, ResourceConfig
from byoa.container.run import Run


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--splits", type=int, default=30)
    options.add_argument("--first", type=int, default=100, help="seed of the first split")
    chosen = options.parse_args()
    results = []
    for seed in range(chosen.first, chosen.first + chosen.splits):
        accuracy, seconds = train(seed)
        results.append((accuracy, seconds))
        print(f"split {seed}: accuracy {accuracy:.4f}, {seconds:.1f} s", flush=True)
    accuracies, times = np.array(results).T
    print(
        f"{chosen.splits} splits: least {accuracies.min():.4f}, mean {accuracies.mean():.4f},"
        f" longest {times.max():.1f} s"
    )
    return 0


def train(seed: int) -> tuple[float, float]:
    """Test accuracy, and the seconds from reading the files to the saved model."""
    records, labels = load_digits(return_X_y=True)
    rest, test, rest_y, test_y = train_test_split(
        records, labels, test_size=0.15, stratify=labels, random_state=seed
    )
    parts = train_test_split(
        rest, rest_y, test_size=0.15 / 0.85, stratify=rest_y, random_state=seed
    )
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(Path(folder))
        layout.create()
        ResourceConfig().write(layout)
        InputDataConfig(
            {name: ChannelConfig(content_type="text/csv") for name in ("train", "validation")}
        ).write(layout)
        for index, name in enumerate(("train", "validation")):
            layout.channel(name).mkdir()
            table = np.column_stack([parts[index + 2], parts[index]])
            np.savetxt(layout.channel(name) / "digits.csv", table, fmt="%g", delimiter=",")
        algorithm = MLPClassifier(MLPClassifier.Hyperparameters.parse({"seed": str(seed)}))
        started = time.monotonic()
        with contextlib.redirect_stdout(io.StringIO()):
            algorithm.train(Run(layout, algorithm.hyperparameters))
        seconds = time.monotonic() - started
        model = algorithm.load(layout.model, "cpu")
        predicted = algorithm.predict(model, test.astype(np.float32))["predicted_label"]
    return float((predicted == test_y).mean()), seconds


if __name__ == "__main__":
    sys.exit(main())
