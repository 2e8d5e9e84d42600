"""The C heap of a process that works on one batch or request after the other: what one has freed
stays for the next.

glibc maps memory for whatever is larger than 128 KiB and returns it when it is freed, so that each
large body, and each array made of it, is mapped and cleared again, page by page.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

# mallopt(3)'s names for them.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MAPPED_BYTES = 32 << 20  # of a piece that is returned at once: the most that glibc takes
SERVING_BYTES, TRAINING_BYTES = 64 << 20, 256 << 20


def keep_freed(most: int, environ: Mapping[str, str] = os.environ) -> bool:
    """Keep up to `most` bytes at the heap's end. False with another C library, and where the
    environment says what glibc is to do."""
    if "GLIBC_TUNABLES" in environ or any(name.startswith("MALLOC_") for name in environ):
        return False
    try:
        import ctypes

        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, ImportError, OSError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES) and mallopt(_M_TRIM_THRESHOLD, most))
