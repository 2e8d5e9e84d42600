"""Hosts of a job as addresses of this machine's loopback network, which Linux has 16 million of."""

from __future__ import annotations

import itertools
import os
import sys

INTERFACE = "lo" if sys.platform == "linux" else "lo0"
_numbers = itertools.count(1)


def addresses(count: int) -> tuple[str, ...]:
    """So many, in the order of a dictionary, that no other test of this machine has."""
    second, third = 1 + os.getpid() // 250 % 250, os.getpid() % 250
    return tuple(sorted(f"127.{second}.{third}.{next(_numbers)}" for _ in range(count)))
