"""What is written down about a training job: its transitions, times and outcome, and the answers
of Describe and List made of it.

The row's document holds the completed request and the record; `status` is TrainingJobStatus.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from byoa.container.contract import FAILURE_LIMIT_CHARACTERS, Layout
from byoa.local.control.training_output import model_uri
from byoa.local.storage.state import Row

KIND = "training-job"
TERMINAL = frozenset({"Completed", "Failed", "Stopped"})

# Members of the request that DescribeTrainingJob has no place for.
_NOT_DESCRIBED = ("SessionChainingConfig",)


def new(request: dict[str, Any]) -> dict[str, Any]:
    """The document of a job that has just been submitted."""
    return {"request": request, "transitions": [], "secondary": "Starting"}


@dataclass(frozen=True)
class HostEntry:
    """What one host runs, written down before it is started: container and log stream, by name."""

    container: str
    stream: str


def host_entries(row: Row) -> dict[str, HostEntry]:
    """By host; empty while nothing is to be started. Byoa 0.1 wrote one host, without its name."""
    if _is_single(row):
        return {"algo-1": HostEntry(row.document["container"], row.document["stream"])}
    return {host: HostEntry(**entry) for host, entry in row.document.get("hosts", {}).items()}


def set_host_entries(row: Row, entries: dict[str, HostEntry]) -> None:
    row.document["hosts"] = {host: asdict(entry) for host, entry in entries.items()}


def set_former_entries(row: Row) -> None:
    """Keep what an attempt ran, whose place another takes."""
    row.document.setdefault("former_hosts", []).extend(
        asdict(entry) for entry in host_entries(row).values()
    )


def all_entries(row: Row) -> list[HostEntry]:
    """What all attempts ran, the latest last."""
    former = [HostEntry(**entry) for entry in row.document.get("former_hosts", ())]
    return [*former, *host_entries(row).values()]


def host_layout(row: Row, directory: Path, host: str) -> Layout:
    """A host's /opt/ml below the job's directory."""
    return Layout(directory / "ml" if _is_single(row) else directory / host / "ml")


def _is_single(row: Row) -> bool:
    return "container" in row.document


def transition(row: Row, secondary: str, message: str) -> None:
    """Enter a secondary status, or give the current one a new message (TRAIN-202)."""
    now = time.time()
    entries = row.document["transitions"]
    row.document["secondary"] = secondary
    if entries and entries[-1]["Status"] == secondary:
        entries[-1]["StatusMessage"] = message
        return
    if entries:
        entries[-1]["EndTime"] = now
    entries.append({"Status": secondary, "StartTime": now, "StatusMessage": message})


def end(row: Row, status: str, secondary: str, message: str, reason: str | None = None) -> None:
    """Enter a terminal status; the last transition ends at once (FIX-18)."""
    transition(row, secondary, message)
    moment = row.document["transitions"][-1]["StartTime"]
    row.document["transitions"][-1]["EndTime"] = moment
    row.status = status
    row.document["ended"] = moment
    if reason is not None:
        row.document["reason"] = reason[:FAILURE_LIMIT_CHARACTERS]


def training_seconds(document: dict[str, Any], until: float) -> float:
    """Time on instances, of all attempts together, at the moment `until`."""
    since = document.get("running_since", document["started"])  # byoa 0.1 wrote only `started`
    spent: float = document.get("spent", 0.0)
    return spent if since is None else spent + until - since


def describe(row: Row) -> dict[str, Any]:
    """DescribeTrainingJob: the request as it was given, and the record (WIRE-12, FIX-18)."""
    document = row.document
    request = document["request"]
    answer = {key: value for key, value in request.items() if key not in _NOT_DESCRIBED}
    answer |= {
        "TrainingJobArn": row.arn,
        "ModelArtifacts": {"S3ModelArtifacts": model_uri(request, row.name)},
        "TrainingJobStatus": row.status,
        "SecondaryStatus": document["secondary"],
        "SecondaryStatusTransitions": document["transitions"],
        "CreationTime": row.created,
        "LastModifiedTime": row.modified,
    }
    if "ProfilerConfig" in request:
        disabled = request["ProfilerConfig"].get("DisableProfiler", False)
        answer["ProfilingStatus"] = "Disabled" if disabled else "Enabled"
    for name, key in (("TrainingStartTime", "started"), ("FailureReason", "reason"),
                      ("FinalMetricDataList", "metrics")):
        if document.get(key):
            answer[name] = document[key]
    if "ended" in document:
        answer["TrainingEndTime"] = document["ended"]
        if "started" in document:
            # Whole seconds of all attempts, at least one, as the API's model has it (TRAIN-204).
            # Nobody bills them here: spot saves nothing (TRAIN-160).
            seconds = max(1, math.ceil(training_seconds(document, document["ended"])))
            answer["TrainingTimeInSeconds"] = answer["BillableTimeInSeconds"] = seconds
    return answer


def summary(row: Row) -> dict[str, Any]:
    """One entry of ListTrainingJobs (WIRE-11); the listing adds the name."""
    found = {
        "TrainingJobArn": row.arn,
        "CreationTime": row.created,
        "LastModifiedTime": row.modified,
        "TrainingJobStatus": row.status,
        "SecondaryStatus": row.document["secondary"],
    }
    if "ended" in row.document:
        found["TrainingEndTime"] = row.document["ended"]
    return found
