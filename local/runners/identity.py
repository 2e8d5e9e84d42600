"""Which process a number means: a PID is reused, a PID with its start time is not.

Standard library only; the shim imports it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

_POLL_SECONDS = 0.05  # only where the kernel has no pidfd


def start_time(pid: int) -> str | None:
    """When the process started, in the system's own unit; None when it is gone or a zombie."""
    if sys.platform == "linux":
        fields = _stat(pid)
        return None if fields is None or fields[0] in ("Z", "X") else fields[19]
    try:
        found = subprocess.run(  # noqa: S603 - an argv with a number
            ["/bin/ps", "-o", "state=,lstart=", "-p", str(pid)],
            capture_output=True, text=True, timeout=10.0, check=False,
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return None
    state, _, started = found.partition(" ")
    return None if not started or state.startswith("Z") else " ".join(started.split())


def is_running(pid: int, started: str | None) -> bool:
    """Whether the process that started then still runs; `started` is None when it had ended."""
    return bool(started) and start_time(pid) == started


def send(pid: int, started: str | None, number: int) -> bool:
    """Send a signal to exactly this process; False when it has ended."""
    with _pidfd(pid) as descriptor:
        # Looked at after the descriptor is open: from here on it cannot become another process.
        if not is_running(pid, started):
            return False
        try:
            if descriptor is not None:
                signal.pidfd_send_signal(descriptor, number)
            else:
                os.kill(pid, number)
        except ProcessLookupError:
            return False
    return True


def wait_for_end(pid: int, started: str | None, timeout: float) -> bool:
    """Wait until the process has ended; False when it still runs after `timeout` seconds."""
    with _pidfd(pid) as descriptor:
        if not is_running(pid, started):
            return True
        if descriptor is not None:
            poller = select.poll()
            poller.register(descriptor, select.POLLIN)
            return bool(poller.poll(max(0.0, timeout) * 1000))
    deadline = time.monotonic() + timeout
    while is_running(pid, started):
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(left, _POLL_SECONDS))
    return True


def children_of(parent: int) -> list[int]:
    """PIDs whose parent is `parent`, zombies included; empty where /proc does not exist."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir("/proc"):
            if name.isdigit():
                fields = _stat(int(name))
                if fields is not None and int(fields[1]) == parent:
                    found.append(int(name))
    return found


def tree_of(root: int) -> dict[int, list[str]]:
    """/proc/<pid>/stat, from its third field on, of all that descends from `root`."""
    stats: dict[int, list[str]] = {}
    children: dict[int, list[int]] = {}
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir("/proc"):
            if name.isdigit() and (fields := _stat(int(name))) is not None:
                stats[int(name)] = fields
                children.setdefault(int(fields[1]), []).append(int(name))
    found: dict[int, list[str]] = {}
    below = list(children.get(root, ()))
    while below:
        pid = below.pop()
        found[pid] = stats[pid]
        below += children.get(pid, ())
    return found


def _stat(pid: int) -> list[str] | None:
    """/proc/<pid>/stat from its third field (state) on; None when the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read().decode("ascii", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2 :].split()


@contextlib.contextmanager
def _pidfd(pid: int) -> Iterator[int | None]:
    descriptor = None
    with contextlib.suppress(AttributeError, OSError):
        descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)
