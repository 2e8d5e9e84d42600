"""Which distributed trace a request belongs to: W3C's traceparent, or X-Ray's header.

The id goes into the log line and into errors, no further. This server makes no spans and calls
nobody, so it has no tracestate to pass on; and traceparent is a header of requests: an answer
carries none (W3C's traceresponse is a draft).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_ROOT = re.compile(r"(?:.*;)?\s*Root=(1-[0-9a-f]{8}-[0-9a-f]{24})\s*(?:;.*)?")
_LIMIT = 512  # characters of a header that is looked at


def parent(value: str) -> tuple[str, str] | None:
    """Trace id and the caller's span id of a traceparent; None where it is not a valid one."""
    match = _PARENT.fullmatch(value) if len(value) <= _LIMIT else None
    if match is None:
        return None
    version, trace, span, more = match.groups()
    # A later version may have more fields; 00 has four, and ff is forbidden.
    if version == "ff" or (version == "00" and more) or not trace.strip("0") or (
        not span.strip("0")
    ):
        return None
    return trace, span


def root(value: str) -> str | None:
    """The trace id of an X-Amzn-Trace-Id."""
    match = _ROOT.fullmatch(value) if len(value) <= _LIMIT else None
    return match[1] if match else None


def fields(headers: Mapping[str, str]) -> dict[str, str]:
    """`trace_id`, and `parent_id` where W3C's header gives it; empty where there is no trace."""
    found = parent(headers.get("traceparent", ""))
    if found is not None:
        return {"trace_id": found[0], "parent_id": found[1]}
    amazon = root(headers.get("x-amzn-trace-id", ""))
    return {} if amazon is None else {"trace_id": amazon}
