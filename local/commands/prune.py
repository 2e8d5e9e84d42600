"""`byoa prune`: give disk space back: what finished jobs and interrupted uploads left behind."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from byoa.container.errors import ByoaError
from byoa.local.commands.leftovers import docker_runner
from byoa.local.commands.options import add_home, add_json, command, settings
from byoa.local.control.left_behind import busy_names, wanted
from byoa.local.settings import Settings

if TYPE_CHECKING:
    from byoa.local.storage.state import State

T = TypeVar("T")
DAY_SECONDS = 86_400.0


def add(commands: Any) -> None:
    parser = command(
        commands, "prune", run_prune,
        help="remove logs, job folders and containers that nothing needs; records and buckets stay",
        example="byoa prune --older-than 7 --dry-run",
    )
    add_home(parser)
    add_json(parser)
    parser.add_argument("--older-than", type=float, default=7.0, metavar="DAYS",
                        help="keep what changed in the last DAYS days (7)")
    parser.add_argument("--dry-run", action="store_true", help="only tell what would go")


def run_prune(args: argparse.Namespace) -> int:
    chosen = settings(args)
    home = chosen.home
    if args.older_than < 0:
        raise ByoaError("OPTION_INVALID", f"--older-than {args.older_than} is negative")
    before = time.time() - args.older_than * DAY_SECONDS
    found = sorted((path, size(path)) for path in candidates(home, before))
    for path, _ in [] if args.dry_run else found:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    left = _left_in_engine(chosen, remove=not args.dry_run)
    checks = _left_by_checks(chosen, remove=not args.dry_run)
    total = sum(each for _, each in found)
    if args.json:
        print(json.dumps(
            {"bytes": total, "paths": [str(path) for path, _ in found], "containers": left,
             "checks": checks},
            indent=1,
        ))
    else:
        for path, each in found:
            print(f"{each:>14,}  {path}")
        for name in left:
            print(f"{'':>14}  {name} (of the container engine)")
        for name in checks:
            print(f"{'':>14}  {name} (of a `byoa check` that was killed)")
        print(f"{total:>14,}  bytes {'would be ' if args.dry_run else ''}removed")
    return 0


def candidates(home: Path, before: float) -> Iterator[Path]:
    """Job folders and logs that last changed before the epoch second `before` and have ended."""
    busy = _busy(home)
    # jobs/<kind>-<account>-<region>/<job>
    for job in (home / "jobs").glob("*/*"):
        if job.is_dir() and job.name not in busy and job.stat().st_mtime < before:
            yield job
    for log in (home / "logs").rglob("*"):
        if log.is_file() and log.stat().st_mtime < before and not busy.intersection(log.parts):
            yield log


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(each.lstat().st_size for each in files if each.is_file() and not each.is_symlink())


def _left_in_engine(chosen: Settings, *, remove: bool) -> list[str]:
    """Names of this home's containers and networks in the engine that nothing needs."""
    runner = docker_runner(chosen)
    if runner is None:
        return []
    try:
        keep = _of_state(chosen.home, wanted, lambda name: False)
        return runner.sweep(keep) if remove else runner.orphans(keep)
    finally:
        runner.close()


def _left_by_checks(chosen: Settings, *, remove: bool) -> list[str]:
    """What checkers of this user left that no longer run."""
    from byoa.local.check import killed
    from byoa.local.runners import engine

    client = None
    if chosen.runner != "process":
        with contextlib.suppress(engine.EngineUnavailable):
            client = engine.connect()
    try:
        return killed.sweep(client, remove=remove)
    finally:
        if client is not None:
            client.close()


def _busy(home: Path) -> set[str]:
    """Names of jobs and endpoints that have not ended, by the record on disk."""
    return _of_state(home, busy_names, set())


def _of_state(home: Path, look: Callable[[State], T], without: T) -> T:
    database = home / "state.sqlite"
    if not database.exists():
        return without
    from byoa.local.storage.state import State

    state = State(database)
    try:
        return look(state)
    finally:
        state.close()
