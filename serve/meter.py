"""What the worker processes count, in memory that all of them share.

Anonymous memory that is mapped before the fork: a region of doubles for each worker, which only
that worker writes, and any of them reads. So a request costs a few additions, without a file, a
lock between processes or a system call; whichever worker is asked for /metrics has the sum of all;
and what a worker counted stays when it dies: its replacement goes on in the same region.

(prometheus_client's mode for several processes keeps a file a process and metric, adds under a
lock, and needs a directory that somebody clears.)
"""

from __future__ import annotations

import mmap
import os
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import NamedTuple

SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0,
)
RECORDS = tuple(float(1 << power) for power in range(13))

# Where each number is in a region. The first are a living worker's, and end with it.
PID, MODELS, IN_FLIGHT, QUEUED = range(4)
FORKS, BYTES_IN, BYTES_OUT, LINES_DROPPED, SERIES_USED = range(4, 9)
_HISTOGRAMS = 16
_SECONDS_SIZE = len(SECONDS) + 2  # a bucket a bound, one beyond them, and the sum
DURATION = _HISTOGRAMS
QUEUE = DURATION + _SECONDS_SIZE
PREDICT = QUEUE + _SECONDS_SIZE
BATCH = PREDICT + _SECONDS_SIZE
SERIES = BATCH + len(RECORDS) + 2
_DURATION_SUM, _QUEUE_SUM, _PREDICT_SUM = QUEUE - 1, PREDICT - 1, BATCH - 1
PREDICTED = SERIES - 1  # records, of all batches
# Requests by route, status and model. What comes when the table is nearly full loses its model.
SERIES_LIMIT = 1024
_MODELS_LIMIT = 768
_VALUES = SERIES + SERIES_LIMIT
_NAME_BYTES = 320  # of a series: a model's name has 240 at most
REGION_BYTES = -(-(_VALUES * 8 + SERIES_LIMIT * _NAME_BYTES) // mmap.PAGESIZE) * mmap.PAGESIZE
OTHER = "other"


class Series(NamedTuple):
    """A label set of the requests that are counted; `model` is empty for a server with one."""

    route: str
    status: int
    model: str


class Meter:
    """One worker's region. Without `memory` it has one of its own, which nobody else reads.

    `enter` and `leave` are for one thread; where several answer requests, they take `lock`.
    """

    def __init__(self, memory: memoryview | None = None) -> None:
        if memory is None:
            memory = memoryview(mmap.mmap(-1, REGION_BYTES))
        self.values = memory[: _VALUES * 8].cast("d")
        self._names = memory[_VALUES * 8 :]
        self.lock = threading.Lock()
        self._calls = threading.Lock()  # several models have several threads
        self._series = {series: SERIES + i for i, series in enumerate(self.series())}

    def begin(self) -> None:
        """A worker process takes the region over."""
        self.end()
        self.values[PID] = float(os.getpid())

    def end(self) -> None:
        """The worker has ended; its counts stay."""
        for gauge in (PID, MODELS, IN_FLIGHT, QUEUED):
            self.values[gauge] = 0.0

    # --- a request ---

    @property
    def in_flight(self) -> float:
        return self.values[IN_FLIGHT]

    def enter(self) -> None:
        self.values[IN_FLIGHT] += 1.0

    def leave(
        self, route: str, status: int, model: str, seconds: float | None, bytes_in: int,
        bytes_out: int,
    ) -> None:
        """Count an answered request; `seconds` only where its time is of interest."""
        values = self.values
        values[IN_FLIGHT] -= 1.0
        key = (route, status, model)
        index = self._series.get(key)  # type: ignore[call-overload]
        values[index or self._add(Series(*key))] += 1.0
        values[BYTES_IN] += bytes_in
        values[BYTES_OUT] += bytes_out
        if seconds is not None:
            values[DURATION + bisect_left(SECONDS, seconds)] += 1.0
            values[_DURATION_SUM] += seconds

    def line_dropped(self) -> None:
        self.values[LINES_DROPPED] += 1.0

    # --- the model ---

    def call(
        self, records: int, seconds: float, requests: int, waits: Sequence[float] = ()
    ) -> None:
        """Count a call of predict that answers so many requests; `waits`: how long each had
        waited for it, empty where none had."""
        values = self.values
        with self._calls:
            values[PREDICT + bisect_left(SECONDS, seconds)] += 1.0
            values[_PREDICT_SUM] += seconds
            values[BATCH + bisect_left(RECORDS, records)] += 1.0
            values[PREDICTED] += records
            if not waits:
                values[QUEUE] += requests
            for wait in waits:
                values[QUEUE + bisect_left(SECONDS, wait)] += 1.0
                values[_QUEUE_SUM] += wait

    def queued(self, change: int) -> None:
        """So many requests more, or fewer, wait for a model."""
        with self._calls:
            self.values[QUEUED] += change

    def set_models(self, count: int) -> None:
        """How many models the worker has in memory."""
        self.values[MODELS] = float(count)

    # --- the table of series ---

    def series(self) -> Iterator[Series]:
        for i in range(int(self.values[SERIES_USED])):
            name = bytes(self._names[i * _NAME_BYTES : (i + 1) * _NAME_BYTES])
            text = name[2 : 2 + int.from_bytes(name[:2], "big")].decode("utf-8", "replace")
            route, status, model = text.split("\t", 2)
            yield Series(route, int(status), model)

    def _add(self, series: Series) -> int:
        """The place of a series that is new to this region."""
        used = int(self.values[SERIES_USED])
        if series.model and series.model != OTHER and used >= _MODELS_LIMIT:
            series = series._replace(model=OTHER)
        elif used >= SERIES_LIMIT - 1:
            series = Series(OTHER, 0, "")
        index = self._series.get(series)
        if index is not None:
            return index
        name = "\t".join((series.route, str(series.status), series.model)).encode()
        name = name[: _NAME_BYTES - 2]
        start = used * _NAME_BYTES
        self._names[start : start + 2 + len(name)] = len(name).to_bytes(2, "big") + name
        index = SERIES + used
        self.values[index] = 0.0
        self.values[SERIES_USED] = used + 1.0  # only now: others read up to here
        self._series[series] = index
        return index


class Meters:
    """The regions of all workers; made by the master, before it forks them."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.started = time.time()
        # A reload starts new workers beside the old ones. More than that come only by SIGTTIN:
        # they share, and a few of their counts are lost.
        self._count = 2 * workers
        self._memory = memoryview(mmap.mmap(-1, self._count * REGION_BYTES))

    def of(self, slot: int) -> Meter:
        start = slot % self._count * REGION_BYTES
        return Meter(self._memory[start : start + REGION_BYTES])

    def forks(self, slot: int) -> None:
        """The master is about to start a worker in this slot."""
        self.of(slot).values[FORKS] += 1.0

    def used(self) -> list[Meter]:
        """The regions that a worker has had."""
        meters = (self.of(slot) for slot in range(self._count))
        return [meter for meter in meters if meter.values[FORKS]]
