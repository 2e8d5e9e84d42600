"""CloudWatch metrics of invocations, gathered in memory and put a few times a minute (CWM-01).

An invocation pays for one `append`; a thread adds up what gathered and writes it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from byoa.local.settings import Caller

NAMESPACE = "AWS/SageMaker"
FLUSH_SECONDS = 2.0


class Invocation(NamedTuple):
    """One invocation: status of the answer that the caller got, and where the time went."""

    caller: Caller
    endpoint: str
    variant: str
    instances: int
    status: int  # 200, or the container's; 0 when it gave none
    model_seconds: float
    overhead_seconds: float
    time: float  # epoch seconds


@dataclass
class Statistic:
    """Values of one metric put together, as PutMetricData's StatisticValues."""

    count: int = 0
    total: float = 0.0
    minimum: float = float("inf")
    maximum: float = float("-inf")

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value
        self.minimum = min(self.minimum, value)
        self.maximum = max(self.maximum, value)


class MetricService(Protocol):
    """The writer's side of CloudWatch metrics (`local.aws.metrics.Metrics`)."""

    def put_statistics(
        self,
        caller: Caller,
        namespace: str,
        name: str,
        *,
        count: int,
        total: float,
        minimum: float,
        maximum: float,
        dimensions: Mapping[str, str],
        timestamp: float,
        unit: str | None = None,
    ) -> None: ...


class InvocationMetrics:
    """Owns the thread that writes; `close` writes what is left."""

    def __init__(self, service: MetricService, interval: float = FLUSH_SECONDS) -> None:
        self._service = service
        self._interval = interval
        self._pending: deque[Invocation] = deque()
        self._stop = threading.Event()
        self._writing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="invocation-metrics", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(10.0)
        self.flush()

    def record(self, invocation: Invocation) -> None:
        self._pending.append(invocation)

    def flush(self) -> None:
        """Write everything recorded before the call."""
        with self._writing:
            sums: dict[tuple[Caller, str, str, int], dict[tuple[str, str], Statistic]] = {}
            first: dict[tuple[Caller, str, str, int], float] = {}
            for _ in range(len(self._pending)):
                each = self._pending.popleft()
                # Statistics are read by the minute: one that spans two would be in one of them.
                key = (each.caller, each.endpoint, each.variant, int(each.time // 60))
                first.setdefault(key, each.time)
                metrics = sums.setdefault(key, {})
                for name, unit, value in _values(each):
                    metrics.setdefault((name, unit), Statistic()).add(value)
            for key, metrics in sums.items():
                caller, endpoint, variant, _ = key
                dimensions = {"EndpointName": endpoint, "VariantName": variant}
                for (name, unit), statistic in metrics.items():
                    self._service.put_statistics(
                        caller,
                        NAMESPACE,
                        name,
                        **vars(statistic),
                        dimensions=dimensions,
                        timestamp=first[key],
                        unit=unit,
                    )

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self.flush()


def _values(each: Invocation) -> list[tuple[str, str, float]]:
    client = 400 <= each.status < 500
    model_failed = not 200 <= each.status < 300
    return [
        ("Invocations", "None", 1.0),
        ("InvocationsPerInstance", "None", 1.0 / max(each.instances, 1)),
        ("Invocation4XXErrors", "None", float(client)),
        ("Invocation5XXErrors", "None", float(model_failed and not client)),
        ("InvocationModelErrors", "None", float(model_failed)),
        ("ModelLatency", "Microseconds", each.model_seconds * 1e6),
        ("OverheadLatency", "Microseconds", each.overhead_seconds * 1e6),
    ]
