"""Training jobs on real files: channels as CSV, configuration as SageMaker writes it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from byoa.algorithms import Algorithm, Run
from byoa.container.contract import (
    ChannelConfig,
    CheckpointConfig,
    InputDataConfig,
    Layout,
    ResourceConfig,
)
from byoa.container.hardware import measure


class Split(NamedTuple):
    """Records (n, 64) and labels (n,) of the handwritten digits."""

    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="session")
def digits() -> Split:
    """1,797 digits of 8×8 pixels, 70/15/15, each class in the same share."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    records, labels = load_digits(return_X_y=True)
    rest, test, rest_y, test_y = train_test_split(
        records, labels, test_size=0.15, stratify=labels, random_state=0
    )
    train, validation, train_y, validation_y = train_test_split(
        rest, rest_y, test_size=0.15 / 0.85, stratify=rest_y, random_state=0
    )
    return Split((train, train_y), (validation, validation_y), (test, test_y))


class Job:
    """One training on files below `root`, and what it leaves."""

    def __init__(self, root: Path, algorithm: type[Algorithm]) -> None:
        self.layout = Layout(root)
        self.layout.create()
        self.algorithm = algorithm
        self.device = "cpu"
        ResourceConfig().write(self.layout)

    def channels(self, media: str = "text/csv", **data: Any) -> Job:
        """Write each channel, (records, labels), (records, None) or text, as one CSV file."""
        for name, content in data.items():
            directory = self.layout.channel(name)
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "part-1.csv").write_text(
                content if isinstance(content, str) else _csv(*content)
            )
        configs = {name: ChannelConfig(content_type=media) for name in data}
        InputDataConfig(configs).write(self.layout)
        return self

    def piped(self, *names: str) -> Job:
        """The named channels' files through FIFOs, one a pass, as the platform writes them."""
        before = InputDataConfig.read(self.layout).channels
        for name in names:
            before[name] = replace(before[name], input_mode="Pipe")
            content = b"".join(
                path.read_bytes() for path in sorted(self.layout.channel(name).iterdir())
            )
            threading.Thread(target=_write_fifos, args=(self.layout, name, content)).start()
        InputDataConfig(before).write(self.layout)
        return self

    def hosts(self, *names: str) -> Job:
        ResourceConfig(current_host=names[0], hosts=names).write(self.layout)
        return self

    def checkpoints(self) -> Job:
        CheckpointConfig("s3://bucket/checkpoints").write(self.layout)
        return self

    def train(
        self, *, stopping: Callable[[], bool] = lambda: False, peers: Any = None, **values: Any
    ) -> Algorithm:
        """Train as the entrypoint does; the trained algorithm."""
        hyperparameters = self.algorithm.Hyperparameters(**values)
        run = Run(self.layout, hyperparameters, hardware=measure(), stopping=stopping)
        run.peers = peers or run.peers
        run.device = self.device
        algorithm = self.algorithm(hyperparameters)
        algorithm.train(run)
        return algorithm

    def metrics(self, name: str) -> list[tuple[int | None, float]]:
        """The logged values of a metric, each with its step."""
        path = self.layout.metrics / "metrics.jsonl"
        if not path.exists():
            return []
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [(line["step"], line["value"]) for line in lines if line["name"] == name]


def _write_fifos(layout: Layout, name: str, content: bytes) -> None:
    """A FIFO for each pass, the next one made when the last is read; ends when none is opened."""
    for number in itertools.count():
        fifo = layout.fifo(name, number)
        os.mkfifo(fifo)
        end = time.monotonic() + 20
        while True:
            try:
                descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
                break
            except OSError:  # no reader yet
                if time.monotonic() > end or (layout.root / "done").exists():
                    return
                time.sleep(0.002)
        os.set_blocking(descriptor, True)
        with contextlib.suppress(BrokenPipeError), open(descriptor, "wb") as file:
            file.write(content)


class Group:
    """The hosts of a job as threads: each has what `run.peers` has."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._meeting = threading.Barrier(size, timeout=60)
        self._given: list[bytes | None] = [None] * size

    def member(self, rank: int) -> Any:
        group = self

        class Member:
            size = group.size

            def __init__(self) -> None:
                self.rank = rank

            def all_gather(self, data: bytes) -> list[bytes]:
                group._given[rank] = data
                group._meeting.wait()
                given = list(group._given)
                group._meeting.wait()
                return given  # type: ignore[return-value]

            def broadcast(self, data: bytes | None = None) -> bytes:
                return self.all_gather(data or b"")[0]

            def barrier(self) -> None:
                group._meeting.wait()

        return Member()

    def each(self, work: Callable[[int, Any], None]) -> None:
        """`work(rank, peers)` on every host at once; raises what one of them raises."""
        with ThreadPoolExecutor(self.size) as pool:
            started = [pool.submit(work, rank, self.member(rank)) for rank in range(self.size)]
            for each in started:
                each.result()


def _csv(records: np.ndarray, labels: np.ndarray | None) -> str:
    columns = records if labels is None else np.column_stack([labels, records])
    return "".join(",".join(f"{value:g}" for value in row) + "\n" for row in columns)


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    """`job(algorithm)` makes one; a name gives it a tree of its own."""
    made: list[Job] = []

    def make(algorithm: type[Algorithm], name: str = "ml") -> Job:
        made.append(Job(tmp_path / name, algorithm))
        return made[-1]

    yield make
    for each in made:
        (each.layout.root / "done").touch()  # for who still waits with a FIFO


@pytest.fixture
def group() -> Callable[[int], Group]:
    """`group(n)` makes the n hosts of a job."""
    return Group


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], str]]:
    """`module(name, source)` writes an author's module where Python finds it."""
    import sys

    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write(name: str, source: str) -> str:
        (tmp_path / f"{name}.py").write_text(source)
        return name

    yield write
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(
            sys.modules[name].__file__
        ):
            del sys.modules[name]
