"""The attempts of a training job: a spot interruption or a platform's fault ends one, and the same
job goes on with another, from a fresh /opt/ml and its checkpoints (TRAIN-160, TRAIN-210).

Written down in the job's document:

    running_since   when this attempt's instances were there; None between two attempts
    spent           seconds of the attempts that have ended
    retries         how many of them the platform's faults have ended
    capacity_at     when the next attempt may start
    former_hosts    what ran in them, by container and log stream
"""

from __future__ import annotations

import time

from byoa.container.errors import ByoaError
from byoa.local.control.training_record import set_former_entries, training_seconds, transition
from byoa.local.runners.engine import EngineUnavailable
from byoa.local.storage.state import Row

FAULT = "InternalServerError: We encountered an internal error. Please try again."
FIRST_PAUSE_SECONDS = 1.0  # before a retry; doubled with each
MAX_PAUSE_SECONDS = 30.0
_FAULT_CODES = ("CONTAINER_GONE",)  # of the runners' errors


class PlatformFault(Exception):
    """What ran the container is gone, for no reason of the job's own."""


def fault_of(error: Exception) -> str | None:
    """What to say of an error that is the platform's own fault; None for the job's and the
    request's (TRAIN-143)."""
    if isinstance(error, PlatformFault | EngineUnavailable):
        return f"{FAULT} {error}"
    if isinstance(error, ByoaError):
        return f"{FAULT} {error}" if error.code in _FAULT_CODES else None
    return f"{FAULT} ({type(error).__name__}: {error})"


def begin(row: Row) -> None:
    """The instances are there: the clocks run from here (TRAIN-153, TRAIN-204)."""
    if row.document.get("running_since") is None:
        row.document["running_since"] = time.time()
    row.document.setdefault("started", row.document["running_since"])


def close(row: Row, pause: float) -> None:
    """The attempt is over and what it ran is removed; the next may start after `pause` seconds."""
    document, now = row.document, time.time()
    if "started" in document:
        document["spent"] = training_seconds(document, now)
    document["running_since"] = None
    document["capacity_at"] = now + pause
    set_former_entries(row)
    for name in ("hosts", "container", "stream", "started_container", "interruption"):
        document.pop(name, None)


def retries_left(row: Row) -> int:
    """How often RetryStrategy still lets the job be run again (TRAIN-210)."""
    strategy = row.document["request"].get("RetryStrategy") or {}
    allowed: int = strategy.get("MaximumRetryAttempts", 0)
    return allowed - int(row.document.get("retries", 0))


def retry(row: Row) -> None:
    """Close the attempt that failed, and count the one that takes its place."""
    done = int(row.document.get("retries", 0))
    close(row, min(FIRST_PAUSE_SECONDS * 2**done, MAX_PAUSE_SECONDS))
    row.document["retries"] = done + 1
    if row.status != "Stopping":
        transition(row, "Restarting", "Restarting the training job after an internal error")


def stream_moment(row: Row) -> int:
    """The number that ends the names of this attempt's log streams: later than any before."""
    former = [entry["stream"] for entry in row.document.get("former_hosts", ())]
    last = max((int(stream.rpartition("-")[2]) for stream in former), default=0)
    return max(int(time.time()), last + 1)
