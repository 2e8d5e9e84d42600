"""Logs and metrics of ended jobs, from their files into CloudWatch: moto keeps them in memory, and
a new server's is empty."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, Protocol, TypeVar

from byoa.local.control import metric_series
from byoa.local.control.log_follower import LogService
from byoa.local.control.metric_series import MetricService, Point
from byoa.local.settings import Caller

BATCH_BYTES = 1 << 20
BATCH_POINTS = 1000
JOIN_SECONDS = 10.0

log = logging.getLogger(__name__)


class Stored(Protocol):
    """What an ended job has left in a file."""

    @property
    def path(self) -> Path: ...


@dataclass(frozen=True)
class EndedStream:
    """One log stream of an ended job, and the time that its lines get."""

    caller: Caller
    group: str
    stream: str
    path: Path
    moment: float


@dataclass(frozen=True)
class EndedSeries:
    """An ended job's metrics."""

    caller: Caller
    job: str
    path: Path


Item = TypeVar("Item", bound=Stored)
Batch = TypeVar("Batch")


class Replay(ABC, Generic[Item, Batch]):
    """Feeds items in a thread of its own, in the order given, as far as the limit goes."""

    limit: ClassVar[int]
    """How much of the newest items, as `_read` counts; older ones are read from their files."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = list(items)
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=self._replay, name=type(self).__name__, daemon=True
        )

    def start(self) -> None:
        if self._items:
            self._thread.start()

    def close(self) -> None:
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_SECONDS)

    def _replay(self) -> None:
        left = self.limit
        for item in self._items:
            try:
                size, batches = self._read(item)
                left -= size
                if left < 0:
                    return
                for batch in batches:
                    if self._closed.is_set():
                        return
                    self._put(item, batch)
            except FileNotFoundError:
                continue  # pruned
            except Exception:
                log.exception("%s is not replayed", item.path)

    @abstractmethod
    def _read(self, item: Item) -> tuple[int, Iterator[Batch]]:
        """How much there is, and it in batches."""

    @abstractmethod
    def _put(self, item: Item, batch: Batch) -> None: ...


class LogReplay(Replay[EndedStream, list[str]]):
    limit = 64 << 20  # bytes

    def __init__(self, logs: LogService, streams: Iterable[EndedStream]) -> None:
        super().__init__(streams)
        self._logs = logs

    def _read(self, item: EndedStream) -> tuple[int, Iterator[list[str]]]:
        return item.path.stat().st_size, _lines(item.path)

    def _put(self, item: EndedStream, batch: list[str]) -> None:
        events = [(item.moment, line) for line in batch]
        self._logs.append(item.caller, item.group, item.stream, events)


class MetricReplay(Replay[EndedSeries, list[Point]]):
    limit = 200_000  # points

    def __init__(self, metrics: MetricService, series: Iterable[EndedSeries]) -> None:
        super().__init__(series)
        self._metrics = metrics

    def _read(self, item: EndedSeries) -> tuple[int, Iterator[list[Point]]]:
        points, _ = metric_series.read(item.path)
        starts = range(0, len(points), BATCH_POINTS)
        return len(points), (points[start : start + BATCH_POINTS] for start in starts)

    def _put(self, item: EndedSeries, batch: list[Point]) -> None:
        metric_series.publish(self._metrics, item.caller, item.job, batch)


def _lines(path: Path) -> Iterator[list[str]]:
    with path.open("r", encoding="utf-8", errors="replace", newline="\n") as file:
        while lines := file.readlines(BATCH_BYTES):
            yield [line.rstrip("\n") for line in lines]
