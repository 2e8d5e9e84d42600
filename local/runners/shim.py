"""The process that stands between the server and one container, and outlives the server.

`python -m byoa.local.runners.shim DIRECTORY` runs the container that DIRECTORY/spec.json describes,
appends its output to the log and leaves the exit in DIRECTORY/exit.json. SIGTERM goes to the
container's first process, SIGUSR1 kills all of it. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from byoa.container.supervisor import Exit, Supervisor
from byoa.local.runners import identity

SPEC, SHIM, CHILD, EXIT = "spec.json", "shim.json", "child.json", "exit.json"
TERMINATE, KILL = signal.SIGTERM, signal.SIGUSR1
EXIT_NO_SANDBOX = 125
# What the first process leaves behind is killed with it, so there is little to wait for.
DRAIN_SECONDS = 1.0

_BECOME_REAPER = 36  # PR_SET_CHILD_SUBREAPER


def write_atomically(path: Path, document: Mapping[str, Any]) -> None:
    """Readers see the whole document or none."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # two may write the same
    with open(part, "w", encoding="utf-8", opener=_private) as file:
        json.dump(document, file)
    os.replace(part, path)


def main(directory: Path) -> None:
    """Run the container of `directory` to its end."""
    record(directory / SHIM, os.getpid())
    spec = json.loads(directory.joinpath(SPEC).read_text(encoding="utf-8"))
    log = os.open(spec["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        ended = _run(directory, spec, log)
    finally:
        os.close(log)
    write_atomically(directory / EXIT, ended.to_json())


def _run(directory: Path, spec: dict[str, Any], log: int) -> Exit:
    def write(line: str) -> None:
        data = f"{line}\n".encode()
        while data:
            data = data[os.write(log, data) :]

    if spec["sandbox"]:
        from byoa.local.runners import sandbox

        try:
            sandbox.enter(
                Path(spec["ml"]), Path(spec["mount"]), isolated=bool(spec["isolated"]),
                network=spec.get("network"), host=spec.get("host"),
                names=Path(spec["names"]) if spec.get("names") else None,
                read_only=[(Path(shown), place) for shown, place in spec.get("read_only", ())],
            )
        except OSError as error:
            write(f"byoa: the container's private /opt/ml cannot be made: {error.strerror}")
            return Exit(EXIT_NO_SANDBOX)
    supervisor = Supervisor(
        spec["argv"], env=spec["environment"], cwd=Path(spec["cwd"]), on_line=write,
        drain=DRAIN_SECONDS,
    )
    # The server started this process with both signals blocked: one that came early is not lost.
    signal.signal(TERMINATE, lambda number, frame: supervisor.send(signal.SIGTERM))
    signal.signal(KILL, lambda number, frame: supervisor.kill())
    try:
        # The signals are let through only when there is a child to pass them to, and the child is
        # born with none blocked.
        _start_unblocked(supervisor)
    except OSError as error:
        # Imported only here: every container waits for this module's imports.
        from byoa.container.contract import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND

        program = spec["argv"][0]
        missing = isinstance(error, FileNotFoundError) and error.filename != spec["cwd"]
        write(f"byoa: {program!r} cannot be run: {error.strerror}")
        return Exit(EXIT_NOT_FOUND if missing else EXIT_NOT_EXECUTABLE)
    record(directory / CHILD, supervisor.pid)
    _adopt_orphans()
    ended = None
    while ended is None:
        try:
            ended = supervisor.wait(3600.0)
        except OSError as error:  # of `write`: the disk is full
            sys.stderr.write(f"the log could not be written: {error}\n")
    _kill_orphans()
    return ended


def record(path: Path, pid: int) -> None:
    """Write down which process it is."""
    write_atomically(path, {"pid": pid, "started": identity.start_time(pid)})


def _start_unblocked(supervisor: Supervisor) -> None:
    # Popen hands this thread's signal mask to the child. Handlers of signals that came early run
    # between the two calls, before there is a child: they are kept and passed on below.
    early: list[int] = []
    handlers = {each: signal.getsignal(each) for each in (TERMINATE, KILL)}
    for each in handlers:
        signal.signal(each, lambda number, frame: early.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {TERMINATE, KILL})
    supervisor.start()
    for each, handler in handlers.items():
        signal.signal(each, handler)
    for number in early:
        signal.raise_signal(number)


def _adopt_orphans() -> None:
    """Become the parent of what leaves the container's process group, so that it can be killed."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_BECOME_REAPER, 1, 0, 0, 0)


def _kill_orphans() -> None:
    """As in a container, nothing outlives the first process, daemons included."""
    for _ in range(100):  # killing a parent hands its children to us
        orphans = identity.children_of(os.getpid())
        if not orphans:
            return
        for pid in orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in orphans:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    sys.stderr.flush()
    os._exit(0)  # the server waits for our end: no time for the interpreter's tidying
