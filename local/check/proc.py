"""What this machine's /proc says about the processes of a box."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path

from byoa.local.check.box import Process


def descendants(first: int) -> list[Process]:
    """`first` and every process below it; empty where there is no /proc or the process is gone."""
    parents: dict[int, int] = {}
    for each in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name in parentheses may hold spaces and parentheses itself.
            fields = each.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields and fields[0] != "Z":
            parents[int(each.parent.name)] = int(fields[1])
    if first not in parents:
        return []
    found = [first]
    for pid in found:
        found += sorted(child for child, parent in parents.items() if parent == pid)
    return [Process(pid, parents[pid], argv(pid)) for pid in found]


def argv(pid: int) -> tuple[str, ...]:
    """The command line of a process; empty for one that is gone or not ours to read."""
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ()
    return tuple(part.decode("utf-8", "replace") for part in text.split(b"\0")[:-1])


def kill(process: Process) -> bool:
    """SIGKILL to a process of this machine; False where it is not ours, or another by now."""
    if not process.argv or argv(process.pid) != process.argv:
        return False
    try:
        os.kill(process.pid, signal.SIGKILL)
    except (PermissionError, ProcessLookupError):
        return False
    return True


def inner_number(pid: int) -> int | None:
    """The number of a process inside its container; None where this machine does not see it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    lines = (line.split() for line in status.splitlines() if line.startswith("NSpid:"))
    return next((int(fields[-1]) for fields in lines), None)


def inodes(pids: Iterable[int]) -> set[str]:
    """The sockets that these processes hold."""
    found = set()
    for pid in pids:
        try:
            links = [link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        found |= {name[8:-1] for name in links if name.startswith("socket:[")}
    return found
