"""Training jobs on real files: channels as CSV, configuration as SageMaker writes it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
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

    def hosts(self, *names: str) -> Job:
        ResourceConfig(current_host=names[0], hosts=names).write(self.layout)
        return self

    def checkpoints(self) -> Job:
        CheckpointConfig("s3://bucket/checkpoints").write(self.layout)
        return self

    def train(self, *, stopping: Callable[[], bool] = lambda: False, **values: Any) -> Algorithm:
        """Train as the entrypoint does; the trained algorithm."""
        hyperparameters = self.algorithm.Hyperparameters(**values)
        run = Run(self.layout, hyperparameters, hardware=measure(), stopping=stopping)
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


def _csv(records: np.ndarray, labels: np.ndarray | None) -> str:
    columns = records if labels is None else np.column_stack([labels, records])
    return "".join(",".join(f"{value:g}" for value in row) + "\n" for row in columns)


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Job]:
    """`job(algorithm)` makes one; a name gives it a tree of its own."""
    return lambda algorithm, name="ml": Job(tmp_path / name, algorithm)


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
