"""How fast the formats decode, as ratios against other readers of the same bytes: NumPy's, and
where they are installed (the extra `bench`) pandas', pyarrow's, protobuf's, sagemaker-training's.

Run: python tests/bench/formats.py [--rounds N]. Each round times every contestant once, in turn,
so that a busy machine slows all alike; the ratio is that of the medians over the rounds.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from byoa.container.formats import json_text, npy, number_text, recordio_protobuf, registry
from byoa.container.formats.base import Batch
from byoa.container.formats.protobuf import read_record
from byoa.container.formats.recordio import payloads

Contestant = Callable[[], object]


def seconds(work: Contestant, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - start) / calls


def calls_for(work: Contestant) -> int:
    """Calls that take about 20 ms, so that the clock's grain does not matter."""
    once = min(seconds(work, 1) for _ in range(3))
    return max(1, int(0.02 / max(once, 1e-7)))


def compare(title: str, ours: Contestant, peers: dict[str, Contestant], rounds: int) -> None:
    contestants = {"byoa": ours, **peers}
    calls = {name: calls_for(work) for name, work in contestants.items()}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, work in contestants.items():
            times[name].append(seconds(work, calls[name]))
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"{title}: byoa {medians.pop('byoa') * 1e6:,.1f} µs")
    mine = statistics.median(times["byoa"])
    for name, median in medians.items():
        print(f"    {median / mine:8.2f} x faster than {name} ({median * 1e6:,.1f} µs)")


def csv_text(rows: np.ndarray) -> bytes:
    return "".join(",".join(map(str, row)) + "\n" for row in rows).encode()


def recordio_bytes(rows: np.ndarray) -> bytes:
    """Frames of dense records, the label map of an answer renamed to the features of a request."""
    answer = recordio_protobuf.FORMAT.encode(rows)
    frames = np.frombuffer(answer, dtype=np.uint8).reshape(len(rows), -1).copy()
    frames[:, 8] = 0x0A  # field 1, features, in place of field 2, label
    return frames.tobytes()


def library(name: str) -> Any:
    """An installed peer, or None, said once."""
    try:
        return importlib.import_module(name)
    except ImportError:
        print(f"(without {name}, which is not installed)")
        return None


def table_readers(data: bytes) -> dict[str, Contestant]:
    """Other libraries' readers of CSV."""
    found: dict[str, Contestant] = {
        "np.loadtxt": lambda: np.loadtxt(
            io.BytesIO(data), delimiter=",", dtype=np.float32, ndmin=2
        ),
        "np.genfromtxt": lambda: np.genfromtxt(io.BytesIO(data), delimiter=",", dtype=np.float32),
    }
    if pandas := library("pandas"):
        found["pandas.read_csv"] = lambda: pandas.read_csv(
            io.BytesIO(data), header=None, dtype=np.float32
        )
    if arrow := library("pyarrow.csv"):
        options = arrow.ReadOptions(autogenerate_column_names=True)
        found["pyarrow.csv, its table alone"] = lambda: arrow.read_csv(
            io.BytesIO(data), read_options=options
        )
    if encoders := library("sagemaker_training.encoders"):
        found["sagemaker_training"] = lambda: encoders.csv_to_numpy(data.decode(), np.float32)
    return found


def record_readers(data: bytes) -> dict[str, Contestant]:
    """The protobuf package with sagemaker-training's message class, a record at a time."""
    found: dict[str, Contestant] = {"our reader, one by one": lambda: record_at_a_time(data)}
    peer = library("sagemaker_training.recordio")
    if peer:
        def through_protobuf() -> np.ndarray:
            return np.array([
                peer.Record.FromString(payload).features["values"].float32_tensor.values
                for payload in peer._read_recordio(io.BytesIO(data))
            ], dtype=np.float32)

        assert np.array_equal(through_protobuf(), recordio_protobuf.FORMAT.decode(data).features)
        found["protobuf, a record at a time"] = through_protobuf
    return found


def record_at_a_time(data: bytes) -> Batch:
    rows = [
        np.array(read_record(payload).features["values"].values, dtype=np.float32)
        for payload in payloads(data)
    ]
    return Batch(np.stack(rows), None)


def versions() -> str:
    orjson = json_text.accelerator()
    parser = f"orjson {orjson.__version__}" if orjson else "standard library's json"
    if number_text.accelerator():
        parser += ", simdjson"
    return (
        f"python {platform.python_version()}, numpy {np.__version__}, {parser},"
        f" {platform.machine()}, {os.cpu_count()} CPUs"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    random = np.random.default_rng(0)
    table = random.normal(size=(1_000, 50)).astype(np.float32)
    pixels = random.integers(0, 17, size=(1_000, 50))
    row = random.normal(size=(1, 64)).astype(np.float32)
    digits = random.integers(0, 17, size=(1, 64))
    csv = registry.find("text/csv")

    print(versions())
    for title, rows in (
        ("CSV 1,000 x 50, float32 text", table),
        ("CSV 1,000 x 50, small integers", pixels),
        ("CSV one row of 64, float32 text", row),
        ("CSV one row of 64, small integers", digits),
    ):
        data = csv_text(rows)
        compare(title, lambda data=data: csv.decode(data), table_readers(data), rounds)
    frames = recordio_bytes(table)
    compare(
        "recordio-protobuf 1,000 x 50, dense", lambda: recordio_protobuf.FORMAT.decode(frames),
        record_readers(frames), rounds,
    )
    saved = io.BytesIO()
    np.save(saved, row)
    array = saved.getvalue()
    compare(
        "npy 1 x 64", lambda: npy.FORMAT.decode(array),
        {"np.load": lambda: np.load(io.BytesIO(array), allow_pickle=False)}, rounds,
    )


if __name__ == "__main__":
    main()
