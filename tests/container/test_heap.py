"""The C heap that keeps what was freed."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from byoa.container.heap import SERVING_BYTES, keep_freed

# Whether memory that was freed is there again, or has to be mapped: by the page faults.
PROGRAM = """
import resource
from byoa.container.heap import keep_freed

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        bytes(4 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

assert keep_freed(64 << 20)
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc alone")
def test_what_was_freed_is_used_again():
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True
    )
    assert int(found.stdout) < 1024  # of 51,200 pages


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_what_the_user_has_set_stays(name):
    assert not keep_freed(SERVING_BYTES, {name: "1"})
