"""What the processes of a container use, as Linux tells it of each of them."""

from __future__ import annotations

import os

from byoa.local.runners import identity
from byoa.local.runners.base import Usage

# Fields of /proc/<pid>/stat, counted from the third: user and system time, own and of the children
# that have been waited for; resident pages.
_TIMES, _RESIDENT = slice(11, 15), 21


def usage_below(shim: int) -> Usage | None:
    """Of all that descends from a container's shim; None where there is nothing, or no /proc."""
    found = identity.tree_of(shim)
    if not found:
        return None
    ticks = sum(int(each) for fields in found.values() for each in fields[_TIMES])
    memory = sum(_memory(pid, fields) for pid, fields in found.items())
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), memory)


def _memory(pid: int, fields: list[str]) -> int:
    """A process's proportional share of what it has resident: what two share counts once."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:  # it has ended, or the kernel does not let us look so closely
        pass
    return int(fields[_RESIDENT]) * os.sysconf("SC_PAGE_SIZE")
