"""What an HTTP handler sees and gives: headers, request, response, a segment of a file.

    Headers     case-insensitive, repeated values joined by ", "
    Request     method, target, path, query, headers, body (a BodyReader), host, secure, client,
                peer
    Response    status, headers, body: bytes | FileSegment | iterator of bytes
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from byoa.local.api.http_body import BodyReader
    from byoa.local.api.http_peer import Peer

__all__ = ["BadRequest", "Disconnected", "FileSegment", "Headers", "Request", "Response"]


class BadRequest(Exception):
    """The bytes of a request are not HTTP as we accept it; answered with `status`, then closed."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Disconnected(ConnectionError):
    """The client went away (or fell silent) in the middle of a body."""


class Headers:
    """Header fields of a request; names are case-insensitive, repeats are joined by ", "."""

    __slots__ = ("_fields",)

    def __init__(self, items: Iterable[tuple[str, str]] = ()) -> None:
        fields: dict[str, str] = {}
        for name, value in items:
            name = name.lower()
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
        self._fields = fields

    def get(self, name: str, default: str | None = None) -> str | None:
        return self._fields.get(name.lower(), default)

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def items(self) -> Iterator[tuple[str, str]]:
        """Pairs of lower-case name and value, in the order of arrival."""
        return iter(self._fields.items())

    def __repr__(self) -> str:
        return f"Headers({list(self._fields.items())!r})"


@dataclass
class Request:
    """One request; `path` and `query` are raw (still percent-encoded)."""

    method: str
    target: str
    path: str
    query: str
    headers: Headers
    body: BodyReader
    host: str  # the Host header (or the URL's authority), lower case, with its port
    secure: bool
    client: tuple[str, int]
    peer: Peer | None = None  # to see whether the client still waits; None: not known

    @property
    def hostname(self) -> str:
        """The host without its port; an IPv6 literal keeps its brackets."""
        name, colon, port = self.host.rpartition(":")
        return name if colon and port.isdigit() else self.host


@dataclass
class FileSegment:
    """`length` bytes of a file from `offset`: a path, or a descriptor that the server closes.

    Open the file yourself where it may be replaced between the answer's head and its body.
    """

    source: Path | int
    offset: int
    length: int

    def open(self) -> int:
        """The descriptor to read from; opened now when `source` is a path."""
        if isinstance(self.source, Path):
            self.source = os.open(self.source, os.O_RDONLY | os.O_CLOEXEC)
        return self.source

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
        if isinstance(self.source, int) and self.source >= 0:
            os.close(self.source)
            self.source = -1


@dataclass
class Response:
    """One answer. An iterator is sent in chunks, one for each item, without buffering.

    Content-Length is added for bytes and segments; a handler that sets it on an iterator promises
    that many bytes. To a HEAD only the head goes out, with the Content-Length that was set.
    """

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes | FileSegment | Iterator[bytes] = b""
