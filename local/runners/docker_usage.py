"""What a container of the engine uses, from the engine's account (GET /containers/<id>/stats)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from byoa.local.runners.base import Usage

_NANOSECONDS = 1e9


def usage_of(stats: Mapping[str, Any]) -> Usage | None:
    """None of a container that has ended: the engine then leaves the members out."""
    memory = stats.get("memory_stats") or {}
    if "usage" not in memory:
        return None
    details = memory.get("stats") or {}
    # File cache that is not in use goes when memory is needed. cgroup v1, and v2.
    cache = details.get("total_inactive_file", details.get("inactive_file", 0))
    seconds = stats["cpu_stats"]["cpu_usage"]["total_usage"] / _NANOSECONDS
    return Usage(seconds, max(0, memory["usage"] - cache), memory.get("limit"))
