"""What a killed checker left: containers and networks of the engine, processes, folders.

All of it names its checker, and goes once that one, of this user and this machine, no longer runs.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from byoa.local.check import tree
from byoa.local.check.reclaim import owner_for, reclaim
from byoa.local.runners.identity import is_running, start_time

LABEL = "byoa.check.process"  # on all that a checker makes in an engine; its value is `mark()`
PREFIX = "byoa-check-"  # of a trial's folder among the temporary ones
FILE = "checker"  # in that folder, with the same mark
ENDED_SECONDS = 10.0  # from SIGKILL to a process's end


def mark() -> str:
    """This process, told from all others: where it runs, its number, when it started."""
    return f"{_place()}|{os.getpid()}|{start_time(os.getpid())}"


def is_killed(mark: str) -> bool:
    """Whether the checker of that mark was this user's on this machine, and has ended."""
    place, _, process = mark.partition("|")
    number, _, started = process.partition("|")
    return place == _place() and number.isdigit() and not is_running(int(number), started)


def _place() -> str:
    """Numbers of processes mean something to this user in this namespace only: an engine may be
    shared by several machines, or be reached from within a container."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        namespace = ""
    return f"{os.getuid()}@{socket.gethostname()}/{namespace}"


def sweep(engine: Any, *, remove: bool = True) -> list[str]:
    """Names of what killed checkers left, which is removed unless `remove` is false.

    `engine` is None where there is none.
    """
    found = [] if engine is None else [*_containers(engine, remove), *_networks(engine, remove)]
    return [*found, *_folders(remove)]


def _containers(engine: Any, remove: bool) -> Iterator[str]:
    from docker.errors import APIError

    files_to = owner_for(engine) if remove else None
    for each in engine.api.containers(all=True, filters={"label": LABEL}):
        if not _is_left(each):
            continue
        if remove:
            # Another checker may be at it, too.
            if files_to is not None:
                with contextlib.suppress(APIError):
                    engine.api.kill(each["Id"])
                with contextlib.suppress(APIError):
                    reclaim(engine, each["Id"], files_to)
            with contextlib.suppress(APIError):
                engine.api.remove_container(each["Id"], force=True, v=True)
        yield f"container {each['Id'][:12]}"


def _networks(engine: Any, remove: bool) -> Iterator[str]:
    from docker.errors import APIError

    for each in engine.api.networks(filters={"label": LABEL}):
        if _is_left(each):
            if remove:
                with contextlib.suppress(APIError):
                    engine.api.remove_network(each["Id"])
            yield f"network {each['Name']}"


def _is_left(document: Mapping[str, Any]) -> bool:
    return is_killed((document.get("Labels") or {}).get(LABEL, ""))


def _folders(remove: bool) -> Iterator[str]:
    for folder in sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*")):
        try:
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            if not is_killed((folder / FILE).read_text(encoding="utf-8")):
                continue
        except OSError:  # no folder of a checker, or one that has just gone
            continue
        if remove:
            _end_processes(folder / "home")
            tree.remove(folder)
        yield str(folder)


def _end_processes(home: Path) -> None:
    """End the boxes of `byoa check --process`, which outlive their checker."""
    from byoa.local.runners.images import Images
    from byoa.local.runners.process import ProcessRunner
    from byoa.local.storage.state import State

    if not (home / "containers").is_dir():
        return
    state = State(home / "state.sqlite")
    try:
        runner = ProcessRunner(Images(state), home)
        for each in (home / "containers").iterdir():
            container = runner.adopt({"name": each.name})
            if container is not None:
                container.kill()
                container.wait(ENDED_SECONDS)
                container.remove()
    finally:
        state.close()
