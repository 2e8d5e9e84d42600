"""Request bodies, streamed from the socket: Content-Length and chunked, never held whole.

`Source` is the connection's read buffer; a BodyReader takes from it what its framing allows.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Protocol

from byoa.local.api.http_messages import BadRequest, Disconnected

__all__ = ["BodyReader", "Source"]

RECEIVE_BYTES = 64 * 1024
CHUNK_LINE_LIMIT_BYTES = 256  # a size in hex and perhaps an extension
TRAILER_LIMIT_BYTES = 16 * 1024

_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\x00]*)?")


class _Receiver(Protocol):
    def recv(self, size: int, /) -> bytes: ...
    def recv_into(self, buffer: memoryview, size: int = ..., /) -> int: ...


class Source:
    """Buffered reading from a socket; what lies beyond a request stays for the next one."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket: _Receiver = sock
        self.buffer = b""

    def fill(self) -> bool:
        """Receive once into the buffer; False when the client has closed its side."""
        data = self._socket.recv(RECEIVE_BYTES)
        self.buffer = self.buffer + data if self.buffer else data
        return bool(data)

    def read_into(self, view: memoryview) -> int:
        """Some bytes, buffered ones first; 0 when the client has closed its side."""
        if self.buffer:
            count = min(len(view), len(self.buffer))
            view[:count] = self.buffer[:count]
            self.buffer = self.buffer[count:]
            return count
        return self._socket.recv_into(view)

    def line(self, limit: int) -> bytes:
        """Up to and without the next CRLF; a bare LF or more than `limit` bytes is refused."""
        while True:
            end = self.buffer.find(b"\n", 0, limit)
            if end >= 0:
                if end == 0 or self.buffer[end - 1] != 0x0D:
                    raise BadRequest(400, "a line of the chunked body does not end in CRLF")
                line, self.buffer = self.buffer[: end - 1], self.buffer[end + 1 :]
                return line
            if len(self.buffer) >= limit:
                raise BadRequest(400, "a line of the chunked body is too long")
            if not self.fill():
                raise Disconnected("the client closed the connection within a chunked body")


class BodyReader:
    """A request's body. `length` is the declared Content-Length, None when it is chunked."""

    def __init__(
        self,
        source: Source | None,
        length: int | None,
        on_first_read: Callable[[], None] | None = None,
    ) -> None:
        self.length = length
        self._source = source
        self._left = length or 0  # of the body, or of the current chunk
        self._chunked = length is None
        self._started = False
        self._on_first_read = on_first_read
        self.exhausted = length == 0

    @property
    def awaits_continue(self) -> bool:
        """The client waits for `100 Continue` and has not been told to go on."""
        return self._on_first_read is not None

    def readinto(self, view: memoryview) -> int:
        """Fill `view` with what is there, at least one byte; 0 at the end of the body.

        Disconnected when the client goes away first; BadRequest when the framing is wrong.
        """
        if self.exhausted or self._source is None:
            return 0
        if self._on_first_read is not None:
            tell, self._on_first_read = self._on_first_read, None
            tell()
        try:
            if self._chunked and not self._left and not self._next_chunk():
                return 0
            count = self._source.read_into(view[: self._left])
        except TimeoutError:
            raise Disconnected("the client fell silent within the body") from None
        if not count:
            raise Disconnected("the client closed the connection within the body")
        self._left -= count
        if not self._chunked and not self._left:
            self.exhausted = True
        return count

    def _next_chunk(self) -> bool:
        source = self._source
        if source is None:
            return False
        if self._started and source.line(2) != b"":
            raise BadRequest(400, "a chunk is longer than its size says")
        self._started = True
        match = _CHUNK_SIZE.fullmatch(source.line(CHUNK_LINE_LIMIT_BYTES))
        if match is None:
            raise BadRequest(400, "a chunk's size is not a hexadecimal number")
        self._left = int(match[1], 16)
        if self._left:
            return True
        spent = 0
        while line := source.line(TRAILER_LIMIT_BYTES):
            # Trailer fields carry nothing that we act on; they end with an empty line.
            spent += len(line)
            if spent > TRAILER_LIMIT_BYTES:
                raise BadRequest(431, "the trailer of the chunked body is too long")
        self.exhausted = True
        return False

    def read(self, n: int = -1) -> bytes:
        """`n` bytes, fewer only at the end; all that is left when `n` is negative."""
        if self.exhausted or n == 0:
            return b""
        if n < 0 and self.length is not None:
            n = self._left
        if n < 0:
            return b"".join(iter(lambda: self.read(RECEIVE_BYTES), b""))
        # The declared length is the client's word: memory follows what has arrived.
        parts: list[bytes] = []
        while n > 0:
            view = memoryview(bytearray(min(n, 1 << 20)))
            count = self.readinto(view)
            if not count:
                break
            parts.append(bytes(view[:count]))
            n -= count
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def drain(self, limit: int) -> bool:
        """Discard what is left, at most `limit` bytes; True when the body has ended."""
        view = memoryview(bytearray(min(limit, RECEIVE_BYTES)))
        while not self.exhausted and limit > 0:
            limit -= self.readinto(view) or limit
        return self.exhausted
