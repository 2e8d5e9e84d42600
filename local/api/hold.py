"""Bounded long-poll: a Describe of a transient resource waits for its end, if the caller waits.

Waiters and the SageMaker SDK sleep 5 to 120 s between two looks and read for 60 s: an answer held
until the job is done is sooner. Any other client may show progress, and is answered at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

HEADER = "x-byoa-hold"  # "0" asks for an immediate answer
SLICE = 0.5  # seconds between two looks while held, should a change's notification be missed

_SDK_PRODUCTS = ("AWS-SageMaker-Python-SDK/", "AWS-SageMakerCore/")
_WAITER_FEATURE = "B"  # botocore's feature id of a waiter, in the user agent's list "m/…"


class Transient(NamedTuple):
    """Where a Describe's answer has its status, and the statuses that will pass by themselves."""

    status: str
    statuses: frozenset[str]


_JOB = frozenset({"InProgress", "Stopping"})
TRANSIENT = {
    "DescribeTrainingJob": Transient("TrainingJobStatus", _JOB),
    "DescribeProcessingJob": Transient("ProcessingJobStatus", _JOB),
    "DescribeTransformJob": Transient("TransformJobStatus", _JOB),
    "DescribeHyperParameterTuningJob": Transient("HyperParameterTuningJobStatus", _JOB),
    "DescribeEndpoint": Transient(
        "EndpointStatus",
        frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"}),
    ),
    "DescribeInferenceComponent": Transient(
        "InferenceComponentStatus", frozenset({"Creating", "Updating", "Deleting"})
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
    """Holds those who wait; `close` lets everybody go."""

    def __init__(self, seconds: float, wait_for_change: Callable[[float], bool]) -> None:
        self._seconds = seconds
        self._wait_for_change = wait_for_change
        self._closed = threading.Event()

    def close(self) -> None:
        """Answer all that are held now and hold nobody any more."""
        self._closed.set()

    def describe(
        self,
        operation: str,
        look: Callable[[], dict[str, Any]],
        *,
        user_agent: str,
        immediate: bool = False,
    ) -> dict[str, Any]:
        """`look()`, again and again while its status is transient and the caller is one who waits.

        `immediate` is the caller's wish not to be held (the header `x-byoa-hold: 0`).
        """
        answer = look()
        transient = TRANSIENT.get(operation)
        if transient is None or self._seconds <= 0 or immediate or not waits(user_agent):
            return answer
        end = time.monotonic() + self._seconds
        while answer.get(transient.status) in transient.statuses and not self._closed.is_set():
            left = end - time.monotonic()
            if left <= 0:
                break
            self._wait_for_change(min(left, SLICE))
            answer = look()
        return answer
