"""Runs of `train` that the checks of training look at; each kind is made once for a trial.

A run is an ordinary `docker run IMAGE train` on a fresh /opt/ml tree. Nothing sets PYTHONUNBUFFERED
here, because the service does not (TRAIN-196).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byoa.container.contract import (
    INPUT_DATA_FILE,
    Layout,
    dump,
    training_environment,
)
from byoa.container.supervisor import Exit
from byoa.local.check.box import Box
from byoa.local.check.checks import NotApplicable
from byoa.local.check.trial import JOB, JOB_ARN, REGION, Trial

PLAIN = "plain"
LOOK_SECONDS = 0.02
RARE_LOOK_SECONDS = 0.5  # at a run that is long
KILL_SECONDS = 10.0
# How long a variant of a run may take that took so many seconds: what hangs is found out sooner.
PATIENCE_SECONDS = 60.0
PATIENCE_TIMES = 10.0


@dataclass(frozen=True)
class TrainingRun:
    """What one run left to be looked at. Times are seconds since its start."""

    layout: Layout  # of this machine: what the container saw as /opt/ml
    exit: Exit | None  # None: still running after `limit` seconds, and then killed
    log: str
    seconds: float
    limit: float
    outputs: tuple[float, ...] = ()  # when more of the log had come
    outside: tuple[str, ...] | None = None  # files written beside mounts; None where unknown

    @property
    def succeeded(self) -> bool:
        return self.exit is not None and self.exit.code == 0

    def model_files(self) -> list[Path]:
        """Everything in /opt/ml/model that is no directory, relative to it."""
        return left_in(self.layout.model)

    def tail(self, lines: int = 8) -> str:
        return "\n".join(self.log.rstrip().splitlines()[-lines:])


def left_in(directory: Path) -> list[Path]:
    """What a directory holds below it that is no directory itself, sorted and relative."""
    found = (path for path in directory.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(path.relative_to(directory) for path in found)


def environment() -> dict[str, str]:
    """The platform's variables of a training container, and none beside those it is sure to set."""
    values = training_environment(job_name=JOB, job_arn=JOB_ARN, region=REGION)
    values.pop("PYTHONUNBUFFERED")
    return values


def start(trial: Trial, ml: Path, **options: Any) -> Box:
    """A container that trains on this tree; `options` are those of `Trial.box`."""
    given = {"host": "algo-1", "shm_bytes": shared_memory(trial), **options}
    return trial.box(("train",), ml=ml, environment=environment(), **given)


def shared_memory(trial: Trial) -> int | None:
    """Bytes of a /dev/shm as large as the service's, rather than an engine's 64 MB (TRAIN-182)."""
    if trial.engine is None:
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def watch(box: Box, limit: float) -> TrainingRun:
    """Wait for the end, noting when output comes; what runs too long is killed."""
    begun = time.monotonic()
    outputs: list[float] = []
    length = 0
    ended = None
    while ended is None and time.monotonic() - begun < limit:
        elapsed = time.monotonic() - begun
        ended = box.wait(min(RARE_LOOK_SECONDS, LOOK_SECONDS + elapsed / 100))
        if (now := len(box.log)) > length:
            length = now
            outputs.append(time.monotonic() - begun)
    return record(box, ended, time.monotonic() - begun, limit, outputs)


def record(
    box: Box, ended: Exit | None, seconds: float, limit: float, outputs: list[float]
) -> TrainingRun:
    """What is left of a run, which is killed where it has not ended; its container is removed."""
    if ended is None:
        box.kill()
        box.wait(KILL_SECONDS)
    try:
        changes: tuple[str, ...] | None = tuple(box.changes())
    except NotApplicable:
        changes = None
    box.remove()
    return TrainingRun(
        Layout(box.ml), ended, box.log, seconds, limit, tuple(outputs), changes
    )


def run(
    trial: Trial, key: str, prepare: Callable[[Layout], object], **options: Any
) -> TrainingRun:
    """The run called `key`: on a fresh tree as `prepare` changed it; made once, then remembered."""

    def make() -> TrainingRun:
        limit = trial.limits.training_seconds if key == PLAIN else limit_after(trial, plain(trial))
        layout = Layout(trial.new_ml())
        prepare(layout)
        return watch(start(trial, layout.root, **options), limit)

    return trial.memo(f"training-run:{key}", make)


def plain(trial: Trial) -> TrainingRun:
    """The ordinary run: the samples as they were given, and nothing that can be left out."""
    return run(trial, PLAIN, without_manifests)


def limit_after(trial: Trial, first: TrainingRun) -> float:
    """How many seconds a run like `first` may take."""
    patience = PATIENCE_SECONDS + PATIENCE_TIMES * first.seconds
    return min(trial.limits.training_seconds, patience)


def without_manifests(layout: Layout) -> None:
    """Leave out the service's own files beside the channels, which a check of their own is for."""
    for name in read_config(layout, INPUT_DATA_FILE):
        layout.manifest(name).unlink(missing_ok=True)


# --- what the variants change in the tree ---------------------------------------------------------


def read_config(layout: Layout, name: str) -> Any:
    return json.loads((layout.config / name).read_text(encoding="utf-8"))


def write_config(layout: Layout, name: str, document: Any) -> None:
    (layout.config / name).write_text(dump(document), encoding="utf-8")


def change_config(layout: Layout, name: str, **values: Any) -> None:
    """Set keys of a config file; None removes one."""
    document = {**read_config(layout, name), **values}
    write_config(layout, name, {k: v for k, v in document.items() if v is not None})
