"""CloudWatch Logs: what containers print, as events that any client reads (WIRE-22, WIRE-40).

Groups and streams are made as needed; lines longer than an event are split.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from byoa.local.aws.moto_app import Moto
from byoa.local.settings import Caller

EVENT_LIMIT_BYTES = 262_144 - 26  # an event's size counts 26 bytes beside its text

__all__ = ["EVENT_LIMIT_BYTES", "Logs"]


class Logs:
    """The writer's side of the log service, in the caller's region."""

    def __init__(self, moto: Moto) -> None:
        self._moto = moto

    def create(self, caller: Caller, group: str, stream: str) -> None:
        """Make an empty stream: v3 of the SDK waits until each host has one."""
        with self._moto.lock("logs"):
            self._ensure(caller, group, stream)

    def append(
        self, caller: Caller, group: str, stream: str, events: Sequence[tuple[float, str]]
    ) -> None:
        """Add events, each its epoch seconds and one line; empty lines make no event."""
        split = [
            {"timestamp": int(moment * 1000), "message": part}
            for moment, text in events
            for line in text.split("\n")
            for part in _parts(line.rstrip("\r"))
        ]
        if not split:
            return
        with self._moto.lock("logs"):
            # By way of the group: the service's own door refuses events older than 14 days, and
            # logs are replayed from files after a restart.
            self._ensure(caller, group, stream).put_log_events(stream, split)

    def delete_stream(self, caller: Caller, group: str, stream: str) -> None:
        """Forget a stream; one that is not there is no error."""
        with self._moto.lock("logs"):
            found = self._backend(caller).groups.get(group)
            if found is not None:
                found.streams.pop(stream, None)

    def delete_group(self, caller: Caller, group: str) -> None:
        """Forget a group with its streams; one that is not there is no error."""
        with self._moto.lock("logs"):
            self._backend(caller).groups.pop(group, None)

    def _backend(self, caller: Caller) -> Any:
        return self._moto.backend("logs", caller.region)

    def _ensure(self, caller: Caller, group: str, stream: str) -> Any:
        backend = self._backend(caller)
        backend.ensure_log_group(group)
        backend.ensure_log_stream(group, stream)
        return backend.groups[group]


def _parts(line: str) -> Iterator[str]:
    """`line` in pieces of at most EVENT_LIMIT_BYTES of UTF-8, no character cut in two."""
    if len(line) * 4 <= EVENT_LIMIT_BYTES:
        if line:
            yield line
        return
    data = line.encode("utf-8", "replace")
    start = 0
    while start < len(data):
        end = min(start + EVENT_LIMIT_BYTES, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:  # within a character
            end -= 1
        yield data[start:end].decode("utf-8", "replace")
        start = end
