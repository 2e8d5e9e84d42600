"""linear-learner beside scikit-learn: the same files, the same threads, at equal or lower loss.

    OMP_NUM_THREADS=2 python tests/bench/algorithms.py --quick
    OMP_NUM_THREADS=2 python tests/bench/algorithms.py --records 1000000 --rounds 3
    python tests/bench/algorithms.py --device cuda        # the GPU's time, beside the CPU's

Each contestant reads the files and fits; time includes both, and the time of reading alone is
printed. scikit-learn reads CSV by pandas, or NumPy where there is no pandas, and recordio-protobuf
by byoa's decoder, as it has none; features are normalized for all, as the algorithm's default is.
The objective is the mean loss of all training records with the penalty asked for (mean squared
error for regression); a contestant that ends above byoa's is marked `>`, one below it `<`.
Contestants take turns in each round; the medians are printed, with the least and the greatest.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sklearn
import torch
from sklearn.datasets import load_breast_cancer, make_classification, make_regression
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier, SGDRegressor

from byoa.algorithms.linear_learner import LinearLearner
from byoa.container import heap
from byoa.container.contract import ChannelConfig, InputDataConfig, Layout, ResourceConfig
from byoa.container.formats import recordio_protobuf
from byoa.container.run import Run

WD = 1e-4
SAME = 1e-4  # losses that differ by less are equal
Matrix = np.ndarray


class Result(NamedTuple):
    seconds: float
    weights: Matrix  # of the raw features
    bias: float
    threads: int = 0


class Data(NamedTuple):
    title: str
    kind: str
    records: Matrix
    labels: Matrix


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="100,000 records, for a laptop")
    options.add_argument("--records", type=int, help="of the large data set")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options.add_argument("--models", type=int, default=32)
    options.add_argument("--only", choices=("small", "large", "models"))
    chosen = options.parse_args()
    records = chosen.records or (100_000 if chosen.quick else 1_000_000)
    devices = ["cpu", "cuda"] if chosen.device == "cuda" else ["cpu"]
    heap.keep_freed(heap.TRAINING_BYTES)  # as a training's process, and so for all
    warnings.simplefilter("ignore")  # scikit-learn's of iterations that end
    print(
        f"python {platform.python_version()}, numpy {np.__version__}, scikit-learn"
        f" {sklearn.__version__}, torch {torch.__version__}, {os.cpu_count()} CPUs,"
        f" OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}"
        + (f", {torch.cuda.get_device_name()}" if chosen.device == "cuda" else ""),
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if chosen.only in (None, "small"):
            features, labels = load_breast_cancer(return_X_y=True)
            small = Data("breast cancer 569 x 30", "binary_classifier", features, labels)
            compare(small, place, chosen.rounds, devices)
        if chosen.only in (None, "large"):
            for large in (classification(records), regression(records)):
                compare(large, place, chosen.rounds, devices)
        if chosen.only in (None, "models"):
            models(classification(records), place, chosen.models, chosen.rounds, devices)
    return 0


def classification(records: int) -> Data:
    features, labels = make_classification(
        records, 100, n_informative=30, n_redundant=10, random_state=0
    )
    return Data(f"classification {records:,} x 100", "binary_classifier", features, labels)


def regression(records: int) -> Data:
    features, labels = make_regression(records, 100, n_informative=50, noise=30, random_state=0)
    return Data(f"regression {records:,} x 100", "regressor", features, labels)


# --- files ----------------------------------------------------------------------------------------


def write(data: Data, place: Path) -> dict[str, Path]:
    """The data as CSV and as recordio-protobuf; both hold the same float32 to six digits."""
    table = np.column_stack([data.labels, data.records]).astype(np.float32)
    csv = place / "data.csv"
    with csv.open("w") as file:
        for row in table.tolist():
            file.write(",".join([f"{value:.6g}" for value in row]) + "\n")
    frames = place / "data.pbr"
    answer = recordio_protobuf.FORMAT.encode({"f": table[:, 1:], "l": table[:, :1]})
    frames.write_bytes(_as_records(answer, len(table)))
    return {"text/csv": csv, "application/x-recordio-protobuf": frames}


def _as_records(answer: bytes, count: int) -> bytes:
    """An answer's frames as a training file's: features, then label, each under "values"."""
    from byoa.container.formats.protobuf import _field, read_record  # the bench's own use
    from byoa.container.formats.recordio import HEADER_BYTES, frame

    rows = np.frombuffer(answer, dtype=np.uint8).reshape(count, -1)
    length = int.from_bytes(answer[4:8], "little")
    spans = read_record(answer[HEADER_BYTES:HEADER_BYTES + length]).label

    def values(name: str) -> Matrix:
        start, end = spans[name].span or (0, 0)
        return rows[:, HEADER_BYTES + start:HEADER_BYTES + end]

    def entry(number: int, size: int) -> bytes:
        tensor = _field(2, _field(1, bytes(size)))
        return _field(number, _field(1, b"values") + _field(2, tensor))

    features, label = values("f"), values("l")
    first, second = entry(1, features.shape[1]), entry(2, label.shape[1])
    head = frame(first + second)
    frames = np.tile(np.frombuffer(head, dtype=np.uint8), (count, 1))
    end = HEADER_BYTES + len(first)
    frames[:, end - features.shape[1]:end] = features
    end += len(second)
    frames[:, end - label.shape[1]:end] = label
    return frames.tobytes()


def read(media: str, path: Path) -> tuple[Matrix, Matrix]:
    """As a user of scikit-learn reads them."""
    if media != "text/csv":
        batch = recordio_protobuf.FORMAT.decode(path.read_bytes())
        assert batch.labels is not None
        return batch.features, batch.labels
    try:
        import pandas as pd

        table = pd.read_csv(path, header=None, dtype=np.float32).to_numpy()
    except ImportError:
        table = np.loadtxt(path, delimiter=",", dtype=np.float32)
    return table[:, 1:], table[:, 0]


# --- contestants ----------------------------------------------------------------------------------


def byoa(data: Data, media: str, path: Path, device: str, **values: Any) -> Result:
    """A training as the entrypoint runs it."""
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(Path(folder))
        layout.create()
        ResourceConfig().write(layout)
        InputDataConfig({"train": ChannelConfig(content_type=media)}).write(layout)
        layout.channel("train").mkdir()
        (layout.channel("train") / path.name).symlink_to(path)
        settings = {"predictor_type": data.kind, "wd": WD, "num_models": 1} | values
        algorithm = LinearLearner(LinearLearner.Hyperparameters(**settings))
        threads = torch.get_num_threads()  # which a training may lower for its process
        started = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            run = Run(layout, algorithm.hyperparameters)
            run.device = device
            algorithm.train(run)
        seconds = time.perf_counter() - started
        torch.set_num_threads(threads)
        model = algorithm.load(layout.model, "cpu")
    bias = float(model.bias[0] - model.shift @ model.weights[:, 0])
    return Result(seconds, model.weights[:, 0], bias)


def peer(make: Callable[[], Any], media: str, path: Path) -> Result:
    estimator = make()
    started = time.perf_counter()
    features, labels = read(media, path)
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    features = (features - mean) / deviation
    estimator.fit(features, labels)
    seconds = time.perf_counter() - started
    weights = np.ravel(estimator.coef_).astype(np.float64) / deviation
    bias = float(np.ravel(estimator.intercept_)[0]) - float(weights @ mean)
    return Result(seconds, weights, bias)


def peers(data: Data) -> dict[str, Callable[[], Any]]:
    count = len(data.labels)
    if data.kind == "regressor":
        return {
            "Ridge cholesky": lambda: Ridge(alpha=WD * count / 2, solver="cholesky"),
            "Ridge auto": lambda: Ridge(alpha=WD * count / 2),
            "SGDRegressor": lambda: SGDRegressor(alpha=WD / 2, random_state=0),
        }
    c = 1 / (WD * count)
    return {
        "LogisticRegression lbfgs": lambda: LogisticRegression(C=c, max_iter=1000),
        "LogisticRegression newton-cholesky": lambda: LogisticRegression(
            C=c, solver="newton-cholesky"
        ),
        "LogisticRegression saga": lambda: LogisticRegression(
            C=c, solver="saga", max_iter=100, random_state=0
        ),
        "SGDClassifier": lambda: SGDClassifier(loss="log_loss", alpha=WD, random_state=0),
    }


def loss(data: Data, result: Result) -> float:
    """The mean loss of the training records, and for classification the penalty that was asked
    for, so that a peer that minimizes it better is seen to."""
    outputs = data.records @ result.weights + result.bias
    if data.kind == "regressor":
        return float(((outputs - data.labels) ** 2).mean())
    values = np.logaddexp(0, outputs) - data.labels * outputs
    scaled = result.weights * data.records.std(axis=0)
    return float(values.mean() + WD / 2 * (scaled**2).sum())


# --- comparisons ----------------------------------------------------------------------------------


def compare(data: Data, place: Path, rounds: int, devices: list[str]) -> None:
    files = write(data, place)
    for media, path in files.items():
        print(f"\n{data.title}, {media}, {path.stat().st_size / 1e6:,.1f} MB", flush=True)
        contestants: dict[str, Callable[[], Result]] = {
            f"byoa {device}": partial(byoa, data, media, path, device) for device in devices
        }
        for name, make in peers(data).items():
            contestants[name] = partial(peer, make, media, path)
        contest(data, contestants, rounds)
        started = time.perf_counter()
        read(media, path)
        print(f"    {'reading alone, by the peers':36} {time.perf_counter() - started:8.3f} s")


def contest(data: Data, contestants: dict[str, Callable[[], Result]], rounds: int) -> None:
    times: dict[str, list[float]] = {name: [] for name in contestants}
    losses: dict[str, float] = {}
    for _ in range(rounds):
        for name, work in contestants.items():
            result = work()
            times[name].append(result.seconds)
            losses[name] = loss(data, result)
    ours = next(iter(contestants))
    mine = statistics.median(times[ours])
    for name, each in times.items():
        median = statistics.median(each)
        difference = losses[name] - losses[ours]
        sign = ">" if difference > SAME * losses[ours] else "<"
        sign = "=" if abs(difference) <= SAME * losses[ours] else sign
        print(
            f"    {name:36} {median:8.3f} s ({min(each):.3f} to {max(each):.3f})"
            f"  {median / mine:7.2f} x  objective {sign} {losses[name]:.6f}",
            flush=True,
        )


def models(data: Data, place: Path, count: int, rounds: int, devices: list[str]) -> None:
    """`count` models of as many penalties in one training, beside as many fits."""
    path = write(data, place)["text/csv"]
    print(f"\n{count} models, {data.title}, text/csv", flush=True)
    penalties = [WD, *np.geomspace(WD / 10, WD * 10, count - 1)]
    for number in range(rounds):
        for device in devices:
            result = byoa(data, "text/csv", path, device, num_models=count)
            print(f"    round {number + 1}: byoa {device}, {count} models in one training"
                  f" {result.seconds:.2f} s, objective {loss(data, result):.6f}", flush=True)
            mine = result.seconds if device == devices[0] else mine  # noqa: F821
        started = time.perf_counter()
        features, labels = read("text/csv", path)
        features = (features - features.mean(axis=0)) / features.std(axis=0)
        reading = time.perf_counter() - started
        total, fitted = reading, 0
        for penalty in penalties:
            started = time.perf_counter()
            SGDClassifier(loss="log_loss", alpha=penalty, random_state=0).fit(features, labels)
            total += time.perf_counter() - started
            fitted += 1
            if total > 300:  # the rest would take as long each
                break
        whole = reading + (total - reading) * count / fitted
        first = peer(
            lambda: SGDClassifier(loss="log_loss", alpha=WD, random_state=0), "text/csv", path
        )
        print(
            f"    round {number + 1}: {count} SGDClassifier fits, read once: {whole:.2f} s"
            f" ({fitted} fitted), objective of the first {loss(data, first):.6f}:"
            f" {whole / mine:.1f} x",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
