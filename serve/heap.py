"""The C heap of a process that answers requests: what one has freed stays for the next.

glibc maps memory for whatever is larger than 128 KiB and returns it when it is freed, so that each
large body, and each array made of it, is cleared and mapped again, page by page.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

# mallopt(3)'s names for them.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MAPPED_BYTES = 16 << 20  # of a piece that is returned at once
_KEPT_BYTES = 64 << 20  # free at the heap's end


def keep_freed(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether it does: not with another C library, nor where the environment says otherwise."""
    if "GLIBC_TUNABLES" in environ or any(name.startswith("MALLOC_") for name in environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES) and mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    )
