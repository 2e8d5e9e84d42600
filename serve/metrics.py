"""/metrics: the counts of all workers as text, in Prometheus's format 0.0.4 (CWM-05)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from pathlib import Path

from byoa.serve import meter
from byoa.serve.meter import Meter, Meters, Series

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_Sample = tuple[str, float]  # labels in braces or nothing, and the value


class Metrics:
    """What /metrics answers in any worker. `catalogue`: how many models the server has, where it
    takes several."""

    def __init__(self, meters: Meters, catalogue: Callable[[], int] | None = None) -> None:
        self._meters = meters
        self._catalogue = catalogue

    def text(self) -> bytes:
        meters = self._meters.used()
        lines: list[str] = []
        for name, kind, meaning, samples in self._families(meters):
            lines += (f"# HELP byoa_{name} {meaning}", f"# TYPE byoa_{name} {kind}")
            lines += (f"byoa_{name}{labels} {_number(value)}" for labels, value in samples)
        for histogram in _HISTOGRAMS:
            lines += _histogram(*histogram, meters)
        return ("\n".join(lines) + "\n").encode()

    def _families(
        self, meters: Sequence[Meter]
    ) -> Iterable[tuple[str, str, str, Iterable[_Sample]]]:
        def total(index: int) -> list[_Sample]:
            return [("", sum(each.values[index] for each in meters))]

        alive = [(slot, each) for slot, each in enumerate(meters) if each.values[meter.PID]]
        yield ("requests_total", "counter",
               "Requests answered; status 499 is a client that left before its answer.",
               _requests(meters))
        yield ("request_bytes_total", "counter", "Bytes of request bodies.",
               total(meter.BYTES_IN))
        yield ("response_bytes_total", "counter", "Bytes of answers' bodies.",
               total(meter.BYTES_OUT))
        yield ("records_total", "counter", "Records given to predict.", total(meter.PREDICTED))
        yield ("requests_in_flight", "gauge", "Requests that are being answered.",
               total(meter.IN_FLIGHT))
        yield ("queue_depth", "gauge", "Requests that wait for a model.", total(meter.QUEUED))
        yield ("workers", "gauge", "Worker processes that live.", [("", float(len(alive)))])
        yield ("workers_planned", "gauge", "Worker processes of the plan.",
               [("", float(self._meters.workers))])
        yield ("worker_restarts_total", "counter", "Worker processes started in place of another.",
               [("", sum(each.values[meter.FORKS] - 1.0 for each in meters))])
        yield ("worker_models", "gauge", "Models that a worker has loaded and tried out.",
               [(f'{{worker="{slot}"}}', each.values[meter.MODELS]) for slot, each in alive])
        if self._catalogue is not None:
            yield ("models", "gauge", "Models that the server has been asked to load.",
                   [("", float(self._catalogue()))])
        yield ("resident_memory_bytes", "gauge", "Memory of each process, shared pages included.",
               _memory(alive))
        yield ("access_log_lines_dropped_total", "counter",
               "Lines of the access log that were dropped because stdout was too slow.",
               total(meter.LINES_DROPPED))
        yield ("start_time_seconds", "gauge", "When the server started, in seconds since 1970.",
               [("", self._meters.started)])


_HISTOGRAMS = (
    ("request_duration_seconds", "From an invocation's head to the end of its answer.",
     meter.DURATION, meter.SECONDS),
    ("queue_seconds", "How long a request waited for the model.", meter.QUEUE, meter.SECONDS),
    ("predict_seconds", "How long a call of predict took.", meter.PREDICT, meter.SECONDS),
    ("batch_records", "Records of a call of predict.", meter.BATCH, meter.RECORDS),
)


def _histogram(
    name: str, meaning: str, start: int, bounds: Sequence[float], meters: Sequence[Meter]
) -> Iterable[str]:
    size = len(bounds) + 1
    buckets = [sum(each.values[start + i] for each in meters) for i in range(size)]
    amount = sum(each.values[start + size] for each in meters)
    yield f"# HELP byoa_{name} {meaning}"
    yield f"# TYPE byoa_{name} histogram"
    counts = list(accumulate(buckets))
    for bound, count in zip((*map(_number, bounds), "+Inf"), counts, strict=True):
        yield f'byoa_{name}_bucket{{le="{bound}"}} {_number(count)}'
    yield f"byoa_{name}_sum {_number(amount)}"
    yield f"byoa_{name}_count {_number(counts[-1])}"


def _requests(meters: Sequence[Meter]) -> Iterable[_Sample]:
    counts: dict[Series, float] = {}
    for each in meters:
        for place, series in enumerate(each.series(), meter.SERIES):
            counts[series] = counts.get(series, 0.0) + each.values[place]
    for series in sorted(counts):
        model = f',model="{_escaped(series.model)}"' if series.model else ""
        yield f'{{route="{series.route}",status="{series.status}"{model}}}', counts[series]


def _memory(alive: Sequence[tuple[int, Meter]]) -> Iterable[_Sample]:
    processes = [("master", os.getppid())]
    processes += [(f"worker-{slot}", int(each.values[meter.PID])) for slot, each in alive]
    for name, pid in processes:
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (OSError, IndexError):  # it has just ended; or there is no /proc: macOS
            continue
        yield f'{{process="{name}"}}', float(pages * os.sysconf("SC_PAGE_SIZE"))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)
