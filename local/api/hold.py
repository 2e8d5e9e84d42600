"""Bounded long-poll: a Describe of a transient resource waits for its end, if the caller waits.

Clients sleep 5 to 120 s between two looks, so an answer held until the job is done beats them all;
a person who looks once is answered at once. botocore reads for 60 s at most, the hold is shorter.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

HEADER = "x-byoa-hold"  # "0" asks for an immediate answer
REPEAT_WINDOW = 60.0  # seconds within which a second look at the same resource is a loop's
SLICE = 0.5  # seconds between two looks while held, should a change's notification be missed
_REMEMBERED = 1024  # looks that are kept

_SDK_PRODUCTS = ("AWS-SageMaker-Python-SDK/", "AWS-SageMakerCore/")
_WAITER_FEATURE = "B"  # botocore's feature id of a waiter, in the user agent's list "m/…"


class Transient(NamedTuple):
    """Where a Describe's answer has its status, and the statuses that will pass by themselves."""

    name: str
    status: str
    statuses: frozenset[str]


_JOB = frozenset({"InProgress", "Stopping"})
TRANSIENT = {
    "DescribeTrainingJob": Transient("TrainingJobName", "TrainingJobStatus", _JOB),
    "DescribeProcessingJob": Transient("ProcessingJobName", "ProcessingJobStatus", _JOB),
    "DescribeTransformJob": Transient("TransformJobName", "TransformJobStatus", _JOB),
    "DescribeHyperParameterTuningJob": Transient(
        "HyperParameterTuningJobName", "HyperParameterTuningJobStatus", _JOB
    ),
    "DescribeEndpoint": Transient(
        "EndpointName",
        "EndpointStatus",
        frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"}),
    ),
    "DescribeInferenceComponent": Transient(
        "InferenceComponentName",
        "InferenceComponentStatus",
        frozenset({"Creating", "Updating", "Deleting"}),
    ),
}

__all__ = ["HEADER", "TRANSIENT", "Hold", "waits"]


def waits(user_agent: str) -> bool:
    """Whether the user agent is a botocore waiter's or the SageMaker Python SDK's."""
    for part in user_agent.split():
        if part.startswith(_SDK_PRODUCTS):
            return True
        if part.startswith("m/") and _WAITER_FEATURE in part[2:].split(","):
            return True
    return False


class Hold:
    """Decides who is held and holds; `close` lets everybody go."""

    def __init__(self, seconds: float, wait_for_change: Callable[[float], bool]) -> None:
        self._seconds = seconds
        self._wait_for_change = wait_for_change
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._looks: dict[tuple[str, ...], float] = {}

    def close(self) -> None:
        """Answer all that are held now and hold nobody any more."""
        self._closed.set()

    def describe(
        self,
        operation: str,
        request: Mapping[str, Any],
        look: Callable[[], dict[str, Any]],
        *,
        user_agent: str,
        address: str,
        immediate: bool = False,
    ) -> dict[str, Any]:
        """`look()`, again and again while its status is transient and the caller is to be held.

        `immediate` is the caller's wish not to be (the header `x-byoa-hold: 0`).
        """
        answer = look()
        transient = TRANSIENT.get(operation)
        if transient is None or self._seconds <= 0 or immediate:
            return answer
        key = (operation, str(request.get(transient.name)), user_agent, address)
        if not self._repeated(key) and not waits(user_agent):
            return answer
        end = time.monotonic() + self._seconds
        while answer.get(transient.status) in transient.statuses and not self._closed.is_set():
            left = end - time.monotonic()
            if left <= 0:
                break
            self._wait_for_change(min(left, SLICE))
            answer = look()
        with self._lock:
            self._looks[key] = time.monotonic()
        return answer

    def _repeated(self, key: tuple[str, ...]) -> bool:
        now = time.monotonic()
        with self._lock:
            before = self._looks.pop(key, None)
            self._looks[key] = now  # at the end: a dict is in the order of insertion
            while len(self._looks) > _REMEMBERED:
                del self._looks[next(iter(self._looks))]
        return before is not None and now - before <= REPEAT_WINDOW
