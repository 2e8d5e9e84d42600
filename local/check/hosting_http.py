"""HTTP/1.1 as the platform's client speaks it, on bare sockets, so that faults of framing show.

A library's client repairs or hides what a check looks for: a length that is wrong, a connection
that ends though nothing said so, an answer that comes before the request is whole.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

Address = tuple[str, int]
Headers = Iterable[tuple[str, str]]

REFUSED, CLOSED, LATE, GARBLED = "refused", "closed", "late", "garbled"
CONNECT_SECONDS = 20.0  # an engine's proxy on a busy machine takes its time
_HEAD_LIMIT = 64 * 1024
_READ_BYTES = 256 * 1024
_NO_BODY = (204, 304)


class NoReply(Exception):
    """No whole answer came; `kind` says in which way, the text says it in words."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True)
class Reply:
    """One whole answer. Header names are lower-case; the seconds count from the sending."""

    version: str
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    first_byte: float  # of the body
    seconds: float
    framing: str  # "length", "chunked", "close" (until the connection ends) or "none"
    continued: bool = False  # 100 Continue came before it

    def header(self, name: str) -> str | None:
        found = [value for each, value in self.headers if each == name.lower()]
        return ", ".join(found) if found else None

    @property
    def stays_open(self) -> bool:
        """Whether the answer promises that the connection takes another request."""
        said = (self.header("connection") or "").lower()
        if self.framing == "close" or "close" in said:
            return False
        return self.version != "HTTP/1.0" or "keep-alive" in said

    def excerpt(self, limit: int = 160) -> str:
        """The body for one line of a report."""
        text = " ".join(self.body[: 4 * limit].decode("utf-8", "replace").split())
        return text if len(text) <= limit else text[:limit].rstrip() + " …"

    def __str__(self) -> str:
        return f"{self.status} {self.excerpt()!r}" if self.body else f"{self.status} (no body)"


class Connection:
    """One connection to a server; every read of one answer has the limit of its call."""

    def __init__(
        self, address: Address, *, timeout: float = CONNECT_SECONDS, discard: bool = False
    ) -> None:
        """With `discard` the bodies of answers are read and thrown away."""
        self._buffer = b""
        self._discard = discard
        self._sent = time.monotonic()
        try:
            self._socket = socket.create_connection(address, timeout)
        except ConnectionRefusedError:
            raise NoReply(REFUSED, "the connection was refused") from None
        except TimeoutError:
            raise NoReply(LATE, f"no connection within {timeout:g} s") from None
        except OSError as error:
            raise NoReply(REFUSED, f"no connection: {error.strerror or error}") from None
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *ended: object) -> None:
        self._socket.close()

    def send(self, data: bytes, *, timeout: float = 60.0) -> None:
        """Send all of it; an end of the connection shows when the answer is read."""
        self._sent = time.monotonic()
        self._socket.settimeout(timeout)
        try:
            self._socket.sendall(data)
        except TimeoutError:
            raise NoReply(LATE, f"the body was not taken within {timeout:g} s") from None
        except OSError:
            pass  # it may have answered before it stopped reading

    def is_closed(self, seconds: float) -> bool:
        """Whether the server ends the idle connection within so many seconds."""
        if self._buffer:
            return False
        self._socket.settimeout(seconds)
        try:
            self._buffer = self._socket.recv(_READ_BYTES)
        except TimeoutError:
            return False
        except OSError:
            return True
        return not self._buffer

    def awaits(self, seconds: float) -> bool:
        """Whether the server says 100 Continue, or anything else, within so many seconds."""
        if not self._buffer:
            self._socket.settimeout(seconds)
            try:
                self._buffer = self._socket.recv(_READ_BYTES)
            except OSError:
                return False
        return bool(self._buffer)

    @property
    def left_over(self) -> bytes:
        """What came after the answers that were read."""
        return self._buffer

    def reply(self, method: str = "GET", *, timeout: float = 60.0) -> Reply:
        """The next answer, 1xx ones skipped; raises NoReply."""
        end = self._sent + timeout
        continued = False
        while True:
            version, status, headers = self._head(end, timeout)
            if not 100 <= status < 200:
                break
            continued = True
        return self._rest(method, version, status, headers, end, timeout, continued)

    def _head(
        self, end: float, timeout: float
    ) -> tuple[str, int, tuple[tuple[str, str], ...]]:
        while b"\r\n\r\n" not in self._buffer:
            if self._buffer and not b"HTTP/".startswith(self._buffer[:5]):
                start = self._buffer[:40].decode("latin-1")
                raise NoReply(GARBLED, f"what came is not HTTP: {start!r}")
            if len(self._buffer) > _HEAD_LIMIT:
                raise NoReply(GARBLED, f"no end of the headers in {_HEAD_LIMIT} bytes")
            if not self._fill(end, f"no answer within {timeout:g} s"):
                half = "in the middle of its headers" if self._buffer else "without an answer"
                raise NoReply(CLOSED, f"the connection ended {half}")
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        parts = first.split(" ", 2)
        if len(parts) < 2 or not parts[0].startswith("HTTP/") or not parts[1].isdecimal():
            raise NoReply(GARBLED, f"the status line is {first[:80]!r}")
        headers = []
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or name != name.strip():
                raise NoReply(GARBLED, f"a header line is {line[:80]!r}")
            headers.append((name.lower(), value.strip()))
        return parts[0], int(parts[1]), tuple(headers)

    def _rest(
        self, method: str, version: str, status: int, headers: tuple[tuple[str, str], ...],
        end: float, timeout: float, continued: bool,
    ) -> Reply:
        fields = dict(headers)
        late = f"the answer was not whole within {timeout:g} s"
        first_byte = 0.0
        parts: list[bytes] = []
        if method == "HEAD" or status in _NO_BODY:
            framing = "none"
        elif "chunked" in fields.get("transfer-encoding", "").lower():
            framing = "chunked"
            for part in self._chunks(end, late):
                first_byte = first_byte or time.monotonic() - self._sent
                parts.append(part)
        elif "content-length" in fields:
            framing = "length"
            declared = fields["content-length"]
            if not declared.isdecimal():
                raise NoReply(GARBLED, f"Content-Length is {declared[:40]!r}")
            parts.append(self._exactly(int(declared), end, late))
        else:
            framing = "close"
            while self._fill(end, late):
                first_byte = first_byte or time.monotonic() - self._sent
            parts.append(self._buffer)
            self._buffer = b""
        seconds = time.monotonic() - self._sent
        return Reply(
            version, status, headers, b"".join(parts), first_byte or seconds, seconds, framing,
            continued,
        )

    def _exactly(self, length: int, end: float, late: str) -> bytes:
        """The next `length` bytes; none of them where bodies are thrown away."""
        parts, left = [], length
        while True:
            part, self._buffer = self._buffer[:left], self._buffer[left:]
            left -= len(part)
            if not self._discard:
                parts.append(part)
            if not left:
                return b"".join(parts)
            if not self._fill(end, f"{late}: {length - left} of {length} bytes came"):
                raise NoReply(
                    CLOSED, f"the connection ended after {length - left} of {length} bytes"
                )

    def _chunks(self, end: float, late: str) -> Iterator[bytes]:
        while True:
            size = self._line(end, late).split(b";", 1)[0].strip()
            try:
                length = int(size, 16)
            except ValueError:
                raise NoReply(GARBLED, f"a chunk's size is {size[:20]!r}") from None
            if length:
                yield self._exactly(length, end, late)
                if self._line(end, late):
                    raise NoReply(GARBLED, "a chunk is longer than its size says")
                continue
            while self._line(end, late):
                pass
            return

    def _line(self, end: float, late: str) -> bytes:
        while b"\r\n" not in self._buffer:
            if not self._fill(end, late):
                raise NoReply(CLOSED, "the connection ended before the last chunk")
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def _fill(self, end: float, late: str) -> bool:
        """Read some more; False at the end of the connection."""
        left = end - time.monotonic()
        if left <= 0:
            raise NoReply(LATE, late)
        self._socket.settimeout(left)
        try:
            data = self._socket.recv(_READ_BYTES)
        except TimeoutError:
            raise NoReply(LATE, late) from None
        except OSError as error:
            said = (error.strerror or str(error)).lower()
            raise NoReply(CLOSED, f"the connection broke: {said}") from None
        self._buffer += data
        return bool(data)


def head(method: str, path: str, address: Address, headers: Headers) -> bytes:
    """A request's first lines, as bytes."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {address[0]}:{address[1]}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def chunked(body: bytes, size: int = 7) -> bytes:
    """`body` in the chunked coding, in several chunks."""
    parts = [body[start : start + size] for start in range(0, min(len(body), 4 * size), size)]
    if rest := body[4 * size :]:
        parts.append(rest)
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def exchange(
    address: Address, method: str, path: str, *, headers: Headers = (), body: bytes | None = None,
    timeout: float = 60.0, discard: bool = False,
) -> Reply:
    """One request on a connection of its own; raises NoReply."""
    fields = list(headers)
    if body is not None:
        fields.append(("Content-Length", str(len(body))))
    fields.append(("Connection", "close"))
    with Connection(address, timeout=min(timeout, CONNECT_SECONDS), discard=discard) as connection:
        connection.send(head(method, path, address, fields) + (body or b""), timeout=timeout)
        return connection.reply(method, timeout=timeout)
