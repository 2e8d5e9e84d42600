"""The values of a job's metrics, kept as lines of JSON beside the job's logs.

CloudWatch is in memory: after a restart the series comes from here, whole and with its own times.
`byoa metrics` reads it, whether a server runs or not.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from byoa.local.control.log_follower import mirror_path
from byoa.local.settings import Caller

NAMESPACE = "/aws/sagemaker/TrainingJobs"  # of metrics; the log group has the same name
SERIES_FILE = "metrics.jsonl"

METRIC = "metric"  # of a MetricDefinition
PRINTED = "printed"  # a line of `run.metrics.log` that no definition names
SYSTEM = "system"  # measured of a host


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Point:
    """One value; `time` is epoch seconds."""

    name: str
    value: float
    time: float
    host: str
    step: int | None = None
    kind: str = METRIC


def series_path(home: Path, caller: Caller, job: str) -> Path:
    """Where a job's values are: beside its logs, and they go when those do."""
    return mirror_path(home, caller, NAMESPACE, job) / SERIES_FILE


class MetricService(Protocol):
    """The writer's side of CloudWatch (`local.aws.metrics.Metrics`)."""

    def put(
        self,
        caller: Caller,
        namespace: str,
        name: str,
        value: float,
        *,
        dimensions: Mapping[str, str],
        timestamp: float,
        unit: str | None = None,
    ) -> Any: ...


def publish(
    metrics: MetricService, caller: Caller, job: str, points: Sequence[Point]
) -> None:
    """Put values into CloudWatch where clients look for them (TRAIN-192, TRAIN-193)."""
    for each in points:
        host = {"Host": f"{job}/{each.host}"}
        if each.kind == SYSTEM:
            metrics.put(caller, NAMESPACE, each.name, each.value, dimensions=host,
                        timestamp=each.time, unit="Percent")
        elif each.kind == METRIC:
            for dimensions in ({"TrainingJobName": job}, host):
                metrics.put(caller, NAMESPACE, each.name, each.value, dimensions=dimensions,
                            timestamp=each.time)


def read(path: Path, offset: int = 0) -> tuple[list[Point], int]:
    """The values from `offset` of the file on, and the offset behind them; none without a file."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return [], offset
    whole = data[: data.rfind(b"\n") + 1]  # a last line may be in the writing
    return list(_points(whole)), offset + len(whole)


class SeriesWriter:
    """Appends values, those of lines that an earlier server had seen already once.

    A server that adopts a job reads its log from the beginning: `keep` gives a value that is known
    the time that it had, and writes it down no second time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known: defaultdict[tuple[str, str], deque[Point]] = defaultdict(deque)
        points, self._size = read(path)
        for each in points:
            if each.kind != SYSTEM:
                self._known[each.name, each.host].append(each)

    def keep(self, points: Sequence[Point]) -> list[Point]:
        """Write down what is new; all of them, with the times that they have in the file."""
        kept, new = [], []
        with self._lock:
            for point in points:
                known = self._known.get((point.name, point.host))
                if known and point.kind != SYSTEM:
                    kept.append(known.popleft())
                else:
                    kept.append(point)
                    new.append(point)
            if new:
                self._append(new)
        return kept

    def _append(self, points: Sequence[Point]) -> None:
        lines = "".join(f"{json.dumps(asdict(each), separators=(',', ':'))}\n" for each in points)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a+b") as file:
                end = file.tell()
                if end > self._size:
                    end = file.truncate(self._size)  # half a line, of a server that was killed
                self._size = end + file.write(lines.encode())
        except OSError as error:
            log.warning("%d values are not kept: %s", len(points), error)


def _points(data: bytes) -> Iterator[Point]:
    for line in data.splitlines():
        try:
            yield Point(**json.loads(line))
        except (ValueError, TypeError):
            continue  # half a line, or one that a person has written
