"""Metrics of ended jobs, from their files into CloudWatch: it keeps them in memory, and a new
server's is empty."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from byoa.local.control.metric_series import MetricService, publish, read
from byoa.local.settings import Caller

TOTAL_POINTS = 200_000  # of the newest jobs; older ones are read from their files
BATCH_POINTS = 1000
JOIN_SECONDS = 10.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EndedSeries:
    """An ended job's values."""

    caller: Caller
    job: str
    path: Path


class MetricReplay:
    """Feeds series in a thread of its own, in the order given, as far as the limit goes."""

    def __init__(self, metrics: MetricService, series: Iterable[EndedSeries]) -> None:
        self._metrics = metrics
        self._series = list(series)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._replay, name="metric-replay", daemon=True)

    def start(self) -> None:
        if self._series:
            self._thread.start()

    def close(self) -> None:
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_SECONDS)

    def _replay(self) -> None:
        left = TOTAL_POINTS
        for each in self._series:
            try:
                points, _ = read(each.path)
                left -= len(points)
                if left < 0:
                    return
                for start in range(0, len(points), BATCH_POINTS):
                    if self._closed.is_set():
                        return
                    publish(self._metrics, each.caller, each.job,
                            points[start : start + BATCH_POINTS])
            except Exception:
                log.exception("the metrics of %s are not replayed", each.job)
