"""Checkpoints that survive an interruption: atomic, verified on load; the last few and the best.

    <LocalPath>/<host>-step-00001200/checkpoint.json, <the algorithm's files>

The platform copies the directory to S3 while files change and restores it on every host before the
start (TRAIN-170, TRAIN-171). All hosts share one prefix, so each writes under its own name
(TRAIN-172).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byoa.container.contract import CHECKPOINT_IGNORED_SUFFIXES
from byoa.container.contract import CHECKPOINT_INDEX as INDEX
from byoa.container.errors import AlgorithmError
from byoa.container.hardware import size

_NAME = re.compile(r"(?P<host>.+)-step-(?P<step>\d{8,})")
_TEMPORARY_SUFFIX = f".part{CHECKPOINT_IGNORED_SUFFIXES[0]}"  # not uploaded (TRAIN-173)
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: read its files from `path`."""

    path: Path
    step: int
    metric: float | None = None


class Checkpoints:
    """The checkpoints of a job. Without CheckpointConfig `enabled` is False and nothing is saved.

    `keep` newest ones of this host stay, and the best by metric: the least, or the greatest when
    `best` is "max". Both may be set by the algorithm before the first `save`.
    """

    def __init__(
        self, directory: Path | None, *, host: str = "algo-1", keep: int = 2, best: str = "min"
    ) -> None:
        self.directory = directory
        self.keep = keep
        self.best = best
        self._host = host
        self._told = False

    @property
    def enabled(self) -> bool:
        return self.directory is not None

    def save(
        self,
        state: Callable[[Path], None] | Mapping[str, bytes],
        step: int,
        metric: float | None = None,
    ) -> Checkpoint | None:
        """Save a checkpoint whole or not at all.

        `state` writes files into the directory that it is given, or is the files' content by name.
        Without CheckpointConfig in the job this does nothing, says so once, and returns None.
        """
        if self.directory is None:
            if not self._told:
                self._told = True
                _say("no CheckpointConfig: checkpoints are off")
            return None
        self._check(step)
        started = time.monotonic()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._sweep()
        final = self.directory / f"{self._host}-step-{step:08d}"
        temporary = self.directory / f"{final.name}{_TEMPORARY_SUFFIX}"
        temporary.mkdir()
        try:
            if isinstance(state, Mapping):
                for name, content in state.items():
                    (temporary / name).write_bytes(content)
            else:
                state(temporary)
            total = self._seal(temporary, step, metric)
            if final.exists():  # a directory is not replaced in one step: put the old one aside
                os.replace(final, self.directory / f"{final.name}.old{_TEMPORARY_SUFFIX}")
            os.replace(temporary, final)
            _sync(self.directory)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self._prune()
        self._sweep()
        _say(f"checkpoint step {step} → {size(total)}, {time.monotonic() - started:.1f} s")
        return Checkpoint(final, step, _number(metric))

    def latest(self) -> Checkpoint | None:
        """The newest whole checkpoint, or None: this host's own, else that of the first host that
        has one. A damaged one is named and passed over (TRAIN-174)."""
        return self._first(lambda entry: -entry.step)

    def best_one(self) -> Checkpoint | None:
        """The whole checkpoint with the best metric, chosen like `latest`; None without metrics."""
        return self._first(self._rank, lambda entry: entry.metric is not None)

    # --- writing ---

    def _check(self, step: int) -> None:
        if self.best not in ("min", "max"):
            raise AlgorithmError(
                "CHECKPOINT_OPTION_INVALID", f"checkpoints.best is {self.best!r}",
                expected='"min" or "max"',
            )
        if self.keep < 1 or step < 0:
            raise AlgorithmError(
                "CHECKPOINT_OPTION_INVALID", f"keep is {self.keep}, step is {step}",
                expected="keep at least 1, step at least 0",
            )

    def _seal(self, directory: Path, step: int, metric: float | None) -> int:
        """Write the index with every file's size and hash, everything synced; bytes in all."""
        files: dict[str, dict[str, Any]] = {}
        for path in sorted(directory.rglob("*")):
            if path.is_file():
                name = path.relative_to(directory).as_posix()
                files[name] = {"size": path.stat().st_size, "sha256": _hash(path)}
                _sync(path)
        if not files:
            raise AlgorithmError(
                "CHECKPOINT_EMPTY", f"the checkpoint of step {step} has no file",
                expected="at least one file in the directory that save passes",
            )
        index = {
            "step": step, "metric": _number(metric), "host": self._host,
            "created": round(time.time(), 3), "files": files,
        }
        (directory / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
        _sync(directory / INDEX)
        _sync(directory)
        return sum(each["size"] for each in files.values())

    def _prune(self) -> None:
        own = sorted(
            (entry for entry in self._entries() if entry.host == self._host),
            key=lambda entry: entry.step,
        )
        kept = own[-self.keep :]
        scored = [entry for entry in own if entry.metric is not None]
        if scored:
            kept.append(min(scored, key=self._rank))
        for entry in own:
            if entry not in kept:
                # Without its index it is no checkpoint any more, however far the removal comes.
                (entry.path / INDEX).unlink(missing_ok=True)
                shutil.rmtree(entry.path, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what an interrupted save of this host left."""
        if self.directory is not None:
            for path in self.directory.glob(f"{self._host}-step-*{_TEMPORARY_SUFFIX}"):
                shutil.rmtree(path, ignore_errors=True)

    def _rank(self, entry: _Entry) -> float:
        metric = entry.metric or 0.0
        return -metric if self.best == "max" else metric

    # --- reading ---

    def _entries(self) -> list[_Entry]:
        """Checkpoints with a readable index. Markers, other files and parts are passed over."""
        if self.directory is None or not self.directory.is_dir():
            return []
        found = []
        for path in sorted(self.directory.iterdir()):
            match = _NAME.fullmatch(path.name)
            if match is None or not path.is_dir():
                continue
            try:
                index = json.loads((path / INDEX).read_text(encoding="utf-8"))
                files, metric = dict(index["files"]), _number(index.get("metric"))
            except (OSError, ValueError, KeyError, TypeError) as error:
                _say(f"checkpoint {path.name} has no whole {INDEX} ({error}): passed over")
                continue
            found.append(_Entry(path, match["host"], int(match["step"]), metric, files))
        return found

    def _first(
        self,
        order: Callable[[_Entry], float],
        wanted: Callable[[_Entry], bool] = lambda entry: True,
    ) -> Checkpoint | None:
        entries = [entry for entry in self._entries() if wanted(entry)]
        own = sorted((e for e in entries if e.host == self._host), key=order)
        others = sorted(
            (e for e in entries if e.host != self._host), key=lambda e: (e.host, order(e))
        )
        for entry in [*own, *others]:
            damage = entry.damage()
            if damage is None:
                return Checkpoint(entry.path, entry.step, entry.metric)
            _say(f"checkpoint {entry.path.name} is damaged ({damage}): passed over")
        return None


@dataclass(frozen=True)
class _Entry:
    path: Path
    host: str
    step: int
    metric: float | None
    files: dict[str, Any]

    def damage(self) -> str | None:
        """What is wrong with the files; None when all are as they were saved."""
        for name, known in self.files.items():
            path = self.path / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != known.get("size"):
                return f"{name} has {path.stat().st_size} bytes, saved were {known.get('size')}"
            if _hash(path) != known.get("sha256"):
                return f"{name} is not what was saved"
        return None


def _number(metric: Any) -> float | None:
    if metric is None:
        return None
    number = float(metric)
    return number if math.isfinite(number) else None


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    """Bring a file or directory to the disk, where its file system can."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
