"""What passes between a door and the core: a request, and its answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from byoa.serve.streaming import Stream
    from byoa.serve.visit import Visit

JSON = "application/json"
REQUEST_ID = "X-Request-Id"


class Request(NamedTuple):
    """`path` without its query; `headers` with lower-case names (HOST-35)."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    query: str = ""
    visit: Visit | None = None  # what is counted and logged of it


class Answer(NamedTuple):
    """`body` is whole, or a Stream that is sent as it comes (STRM-01)."""

    status: int
    body: bytes | Stream
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def identity(self) -> str:
        """The X-Request-Id where it stands first, as in our refusals; else an empty one."""
        return self.headers[0][1] if self.headers and self.headers[0][0] == REQUEST_ID else ""

    @property
    def whole(self) -> bytes:
        """The body of an answer that is no stream."""
        if isinstance(self.body, bytes):
            return self.body
        raise TypeError("this answer is sent while it is made")


def as_json(status: int, document: Mapping[str, Any]) -> Answer:
    return Answer(status, json.dumps(document).encode())
