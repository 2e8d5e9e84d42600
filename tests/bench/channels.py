"""How fast a channel is read, as ratios against peers in the same run: `batches` and `load`, in
File and Pipe mode, beside the decoding of the file in one go and beside cat, which decodes nothing.

Run: python tests/bench/channels.py [--size-mib N] [--rounds N] [--batch N]. Each round times every
contestant once, in turn, so that a busy machine slows all alike; the ratio is that of the medians
over the rounds. The file has been read before, so that the disk is no part of it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from byoa.container.channels import Channel, open_channels
from byoa.container.contract import ChannelConfig, InputDataConfig, Layout
from byoa.container.formats import recordio_protobuf, registry
from byoa.container.formats.recordio import HEADER_BYTES

RECORDS = 10_000  # of one block, which the file repeats
COLUMNS = 20


def csv(table: np.ndarray) -> bytes:
    return "".join(",".join(map(str, row)) + "\n" for row in table.tolist()).encode()


def recordio(table: np.ndarray) -> bytes:
    """Features without labels: an answer's records, whose map of labels is renamed."""
    frames = np.frombuffer(recordio_protobuf.FORMAT.encode(table), np.uint8)
    frames = frames.reshape(len(table), -1).copy()
    frames[:, HEADER_BYTES] = 0x0A
    return frames.tobytes()


class Bench:
    """One file of one format, and all ways to read it."""

    def __init__(self, root: Path, content_type: str, block: bytes, size: int, batch: int) -> None:
        self.layout = Layout(root)
        self.content_type = content_type
        self.batch = batch
        self.path = self.layout.channel("train") / "a"
        self.fifo = self.layout.fifo("train", 0)
        self.path.parent.mkdir(parents=True)
        with self.path.open("wb") as file:
            for _ in range(-(-size // len(block))):
                file.write(block)
        self.mib = self.path.stat().st_size / (1 << 20)

    def channel(self, mode: str) -> Channel:
        config = ChannelConfig(content_type=self.content_type, input_mode=mode)
        return open_channels(self.layout, InputDataConfig({"train": config}))["train"]

    def contestants(self) -> dict[str, Callable[[], object]]:
        return {
            "batches in File mode": lambda: self.passes("File"),
            "batches in Pipe mode": lambda: self.piped(lambda: self.passes("Pipe")),
            "load in File mode": lambda: self.channel("File").load(),
            "load in Pipe mode": lambda: self.piped(lambda: self.channel("Pipe").load()),
            "the file decoded in one go": self.whole,
            "cat of the file": lambda: self.cat(self.path),
            "cat of the FIFO": lambda: self.piped(lambda: self.cat(self.fifo)),
        }

    def passes(self, mode: str) -> None:
        for _ in self.channel(mode).batches(self.batch):
            pass

    def whole(self) -> None:
        format_ = registry.find(self.content_type)
        format_.decode(self.path.read_bytes(), label_size=1, where="train/a")

    def cat(self, path: Path) -> None:
        subprocess.run(["cat", str(path)], stdout=subprocess.DEVNULL, check=True, timeout=600)

    def piped(self, read: Callable[[], object]) -> None:
        """As the platform writes: another process, a FIFO."""
        os.mkfifo(self.fifo)
        command = ["dd", f"if={self.path}", f"of={self.fifo}", "bs=1M", "status=none"]
        with subprocess.Popen(command) as writer:
            try:
                read()
                writer.wait(600)
            finally:
                writer.kill()
                self.fifo.unlink()


def compare(bench: Bench, rounds: int) -> None:
    contestants = bench.contestants()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(rounds + 1):
        for name, work in contestants.items():
            start = time.perf_counter()
            work()
            if round_:  # the first one is to warm up
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"{bench.content_type}, {bench.mib:.0f} MiB, batches of {bench.batch}:")
    base = medians["load in File mode"]
    for name, median in medians.items():
        print(
            f"    {bench.mib / median:8,.0f} MiB/s   {base / median:6.2f} x load in File mode"
            f"   {name}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-mib", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=256)
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    table = random.standard_normal((RECORDS, COLUMNS)).astype(np.float32).round(4)
    for content_type, write in (
        ("text/csv", csv), ("application/x-recordio-protobuf", recordio),
    ):
        with tempfile.TemporaryDirectory() as root:
            size = arguments.size_mib << 20
            compare(
                Bench(Path(root), content_type, write(table), size, arguments.batch),
                arguments.rounds,
            )


if __name__ == "__main__":
    main()
