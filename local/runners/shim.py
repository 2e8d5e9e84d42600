"""The process that stands between the server and one container, and outlives the server.

`python -m byoa.local.runners.shim DIRECTORY` runs the container that DIRECTORY/spec.json describes,
appends its output to the log and leaves the exit in DIRECTORY/exit.json. SIGTERM goes to the
container's first process, SIGUSR1 kills all of it. Without DIRECTORY a program is started ahead of
its container. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from byoa.container.supervisor import SIGNAL_SECONDS, Exit, Supervisor
from byoa.local.runners import identity

SPEC, SHIM, CHILD, EXIT = "spec.json", "shim.json", "child.json", "exit.json"
TERMINATE, KILL = signal.SIGTERM, signal.SIGUSR1
EXIT_NO_SANDBOX = 125
# What the first process leaves behind is killed with it, so there is little to wait for.
DRAIN_SECONDS = 1.0
LOOK_SECONDS = 1.0  # between two looks at whether a program that waits for its job still does
KEPT_LINES = 1000

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
    spec = _read(directory)
    with _log(spec) as write:
        ended = _run(directory, spec, write)
    write_atomically(directory / EXIT, ended.to_json())


def main_ahead() -> None:
    """Start a program whose container is not known yet, and run it to its end when it is.

    Standard input says what is started, as JSON; then the container's directory, by which the
    program is told on its own standard input what its job is. Where the input ends instead, because
    the server wants no container any more or has died, there is none.
    """
    requests = os.fdopen(0, "rb", buffering=0)  # unbuffered: it is polled
    spec = json.loads(requests.readline())
    lines = _Lines()
    if spec["sandbox"]:
        from byoa.local.runners import sandbox

        sandbox.leave(isolated=bool(spec["isolated"]))
    told, tell = os.pipe()
    supervisor = Supervisor(
        spec["argv"], env=spec["environment"], cwd=Path(spec["cwd"]),
        on_line=lines, drain=DRAIN_SECONDS, stdin=told,
    )
    early = _start_unblocked(supervisor)
    os.close(told)
    _adopt_orphans()
    name = _await_container(requests, supervisor)
    if name is None:
        supervisor.kill()
        supervisor.wait(DRAIN_SECONDS + 1.0)
        _kill_orphans()
        shutil.rmtree(spec["scratch"], ignore_errors=True)
        return
    directory = Path(name)
    record(directory / SHIM, os.getpid())
    spec = _read(directory)
    with _log(spec) as write:
        lines.open(write)
        ended = _show(spec, write)
        if ended is None:
            _pass_on(supervisor, early)
            job = {"environment": spec["environment"], "cwd": spec["cwd"]}
            with contextlib.suppress(BrokenPipeError):  # it has ended, and its exit says how
                with os.fdopen(tell, "w", encoding="utf-8") as stream:
                    stream.write(f"{json.dumps(job)}\n")
            ended = _watch(directory, supervisor)
        else:
            supervisor.kill()
    write_atomically(directory / EXIT, ended.to_json())


class _Lines:
    """Keeps what is said while there is no log: it is that of the job to come."""

    def __init__(self) -> None:
        self._kept: deque[str] = deque(maxlen=KEPT_LINES)
        self._write: Callable[[str], None] = self._kept.append
        self._lock = threading.Lock()

    def __call__(self, line: str) -> None:
        with self._lock:
            self._write(line)

    def open(self, write: Callable[[str], None]) -> None:
        with self._lock:
            for line in self._kept:
                write(line)
            self._write = write


def _await_container(requests: Any, supervisor: Supervisor) -> str | None:
    """The container's directory; None where there is to be none, or the program has ended."""
    while supervisor.wait(0) is None:
        if select.select([requests], [], [], LOOK_SECONDS)[0]:
            return requests.readline().decode().strip() or None
    return None


def _read(directory: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(directory.joinpath(SPEC).read_text(encoding="utf-8"))
    return document


@contextlib.contextmanager
def _log(spec: Mapping[str, Any]) -> Iterator[Callable[[str], None]]:
    log = os.open(spec["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(line: str) -> None:
        data = f"{line}\n".encode()
        while data:
            data = data[os.write(log, data) :]

    try:
        yield write
    finally:
        os.close(log)


def _run(directory: Path, spec: dict[str, Any], write: Callable[[str], None]) -> Exit:
    if spec["sandbox"]:
        from byoa.local.runners import sandbox

        try:
            sandbox.leave(
                isolated=bool(spec["isolated"]), network=spec.get("network"),
                renamed=spec.get("host") is not None,
            )
        except OSError as error:
            return _no_sandbox(write, error)
    if (refused := _show(spec, write)) is not None:
        return refused
    supervisor = Supervisor(
        spec["argv"], env=spec["environment"], cwd=Path(spec["cwd"]), on_line=write,
        drain=DRAIN_SECONDS,
    )
    # The server started this process with both signals blocked: one that came early is not lost.
    try:
        early = _start_unblocked(supervisor)
    except OSError as error:
        # Imported only here: every container waits for this module's imports.
        from byoa.container.contract import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND

        program = spec["argv"][0]
        missing = isinstance(error, FileNotFoundError) and error.filename != spec["cwd"]
        write(f"byoa: {program!r} cannot be run: {error.strerror}")
        return Exit(EXIT_NOT_FOUND if missing else EXIT_NOT_EXECUTABLE)
    _adopt_orphans()
    _pass_on(supervisor, early)
    return _watch(directory, supervisor)


def _show(spec: Mapping[str, Any], write: Callable[[str], None]) -> Exit | None:
    """Show the container's /opt/ml and names; its exit where that cannot be."""
    if not spec["sandbox"]:
        return None
    from byoa.local.runners import sandbox

    try:
        sandbox.show(
            Path(spec["ml"]), Path(spec["mount"]), host=spec.get("host"),
            names=Path(spec["names"]) if spec.get("names") else None,
            read_only=[(Path(shown), place) for shown, place in spec.get("read_only", ())],
        )
    except OSError as error:
        return _no_sandbox(write, error)
    return None


def _no_sandbox(write: Callable[[str], None], error: OSError) -> Exit:
    write(f"byoa: the container's private /opt/ml cannot be made: {error.strerror}")
    return Exit(EXIT_NO_SANDBOX)


def _watch(directory: Path, supervisor: Supervisor) -> Exit:
    record(directory / CHILD, supervisor.pid)
    ended = None
    while ended is None:
        try:
            ended = supervisor.wait(SIGNAL_SECONDS)
        except OSError as error:  # of `write`: the disk is full
            sys.stderr.write(f"the log could not be written: {error}\n")
    _kill_orphans()
    return ended


def record(path: Path, pid: int) -> None:
    """Write down which process it is."""
    write_atomically(path, {"pid": pid, "started": identity.start_time(pid)})


def _start_unblocked(supervisor: Supervisor) -> list[int]:
    """Start the child; the signals for it that came before it was there, and until `_pass_on`."""
    early: list[int] = []
    for each in (TERMINATE, KILL):
        signal.signal(each, lambda number, frame: early.append(number))
    # Popen hands this thread's signal mask to the child, which is to be born with none blocked.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {TERMINATE, KILL})
    supervisor.start()
    return early


def _pass_on(supervisor: Supervisor, early: list[int]) -> None:
    """Hand our signals on to the child, those that came early first."""
    signal.signal(TERMINATE, lambda number, frame: supervisor.send(signal.SIGTERM))
    signal.signal(KILL, lambda number, frame: supervisor.kill())
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
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        main_ahead()
    sys.stderr.flush()
    os._exit(0)  # the server waits for our end: no time for the interpreter's tidying
