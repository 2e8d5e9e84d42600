"""One keep-alive HTTP/1.1 connection to a serving container, on a plain socket.

An exchange has one deadline for all of it. http.client's header parser alone costs more than the
whole exchange does here, and the runtime must add less than a millisecond to an invocation.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

HEAD_LIMIT_BYTES = 65_536
_CHUNK = 262_144
# Up to this size head and body leave in one segment; a larger body is not copied for that.
_JOIN_LIMIT_BYTES = 65_536
# Waits until a socket can be read or so many seconds are over; False when the caller has left.
Stay = Callable[[socket.socket, float], bool]


class ConnectionFailed(Exception):
    """The container did not give a complete answer."""


class Unreachable(ConnectionFailed):
    """No connection was made: nothing listens, or the address is not reachable."""


class ConnectionLost(ConnectionFailed):
    """The connection ended before an answer began. `accepted` is False when the container's side
    was closed before it had taken the request, which is therefore safe to send again."""

    def __init__(self, message: str, *, accepted: bool) -> None:
        super().__init__(message)
        self.accepted = accepted


class BadAnswer(ConnectionFailed):
    """What came back is not HTTP, or ended in the middle."""


class AnswerTooLarge(ConnectionFailed):
    """The answer's body is larger than the caller takes. `size` is known from Content-Length."""

    def __init__(self, status: int, size: int | None) -> None:
        super().__init__(f"the answer has {size or 'too many'} bytes")
        self.status = status
        self.size = size


class CallerLeft(Exception):
    """Whoever asked is gone, while the container was being waited for."""


@dataclass(frozen=True)
class Head:
    """The beginning of an answer. Header names are as an Answer's; `keep_alive`: the connection
    may be used again once the body has been read, where its framing marks its end."""

    status: int
    headers: dict[str, str]
    keep_alive: bool


@dataclass(frozen=True)
class Answer:
    """A complete answer. Header names are in lower case; repeated ones are joined by a comma."""

    status: int
    headers: dict[str, str]
    body: bytes
    keep_alive: bool


class Connection:
    """A connection that carries one exchange at a time."""

    def __init__(self, address: tuple[str, int], deadline: float) -> None:
        """Connect; raises Unreachable or TimeoutError. `deadline` is of the monotonic clock."""
        try:
            self._socket = socket.create_connection(address, timeout=_remaining(deadline))
        except TimeoutError:
            raise
        except OSError as error:
            raise Unreachable(error.strerror or str(error)) from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()
        self._stay: Stay | None = None

    def close(self) -> None:
        self._socket.close()

    def is_stale(self) -> bool:
        """Whether the other side has closed it, or sent something that nobody asked for."""
        if self._received:
            return True
        try:
            self._socket.settimeout(0)
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def exchange(
        self, head: bytes, body: bytes | bytearray, deadline: float, limit: int | None
    ) -> Answer:
        """Send a request and read its answer, of at most `limit` body bytes.

        Raises TimeoutError at the deadline, ConnectionLost, BadAnswer and AnswerTooLarge; after
        any of them the connection is of no more use.
        """
        begun = self.begin(head, body, deadline)
        content, delimited = self._read_body(begun.status, begun.headers, deadline, limit)
        return Answer(begun.status, begun.headers, content, begun.keep_alive and delimited)

    def begin(
        self,
        head: bytes,
        body: bytes | bytearray,
        deadline: float,
        stay: Stay | None = None,
    ) -> Head:
        """Send a request and read the head of its answer; raises as `exchange` does.

        With `stay` all waiting for the answer, its body's included, goes through that, and raises
        CallerLeft when it says so.
        """
        self._stay = stay
        sent = self._send(head, body, deadline)
        status, headers, version = self._read_head(deadline, sent)
        while 100 <= status < 200:
            status, headers, version = self._read_head(deadline, sent)
        tokens = headers.get("connection", "").lower()
        keep = sent and "close" not in tokens and (
            version != "HTTP/1.0" or "keep-alive" in tokens
        )
        return Head(status, headers, keep)

    def some(self, most: int, deadline: float) -> bytes:
        """Up to `most` bytes, those that have arrived already first; none at the end."""
        if not self._received and not self._receive(deadline):
            return b""
        taken = bytes(self._received[:most])
        del self._received[:most]
        return taken

    def line(self, deadline: float) -> bytes:
        """A line of a chunked body's framing, without its end."""
        while (end := self._received.find(b"\r\n")) < 0:
            if len(self._received) > HEAD_LIMIT_BYTES:
                raise BadAnswer("a chunk's size line does not end")
            if not self._receive(deadline):
                raise BadAnswer("the answer ended before its last chunk")
        line = bytes(self._received[:end])
        del self._received[: end + 2]
        return line

    def chunk_size(self, deadline: float) -> int:
        """The size of the next chunk; at 0 the trailers have been read, and the body ends."""
        line = self.line(deadline).partition(b";")[0].strip()
        if not line or line.strip(b"0123456789abcdefABCDEF"):
            raise BadAnswer(f"a chunk of the answer has the size {line[:20]!r}")
        size = int(line, 16)
        if size == 0:
            while self.line(deadline):
                pass  # trailers
        return size

    def end_chunk(self, deadline: float) -> None:
        """Read the line end after a chunk's bytes."""
        while len(self._received) < 2:
            if not self._receive(deadline):
                raise BadAnswer("the answer ended within a chunk")
        if self._received[:2] != b"\r\n":
            raise BadAnswer("a chunk of the answer is longer than its size says")
        del self._received[:2]

    def _send(self, head: bytes, body: bytes | bytearray, deadline: float) -> bool:
        """Whether all of it was sent. A container may refuse a request before it read the body,
        so a broken pipe is not yet a failure: the answer may already be there."""
        self._socket.settimeout(_remaining(deadline))
        try:
            if len(body) <= _JOIN_LIMIT_BYTES:
                self._socket.sendall(head + body)
            else:
                self._socket.sendall(head)
                self._socket.settimeout(_remaining(deadline))
                self._socket.sendall(body)
        except ConnectionError:
            return False
        return True

    def _receive(self, deadline: float) -> bool:
        """Append what arrives to the buffer; False at the end of the stream."""
        if self._stay is not None and not self._stay(self._socket, _remaining(deadline)):
            raise CallerLeft
        self._socket.settimeout(_remaining(deadline))
        data = self._socket.recv(_CHUNK)
        self._received += data
        return bool(data)

    def _read_head(self, deadline: float, sent: bool) -> tuple[int, dict[str, str], str]:
        while (end := self._received.find(b"\r\n\r\n")) < 0:
            if len(self._received) > HEAD_LIMIT_BYTES:
                raise BadAnswer(f"the answer's head is larger than {HEAD_LIMIT_BYTES} bytes")
            try:
                more = self._receive(deadline)
            except ConnectionError:
                # Reset before an answer began: the request, or its end, was never read.
                raise self._lost("the connection was reset", accepted=False) from None
            if not more:
                # The stream ended. Had our bytes come after the close, they would have been
                # answered by a reset, which the socket remembers as its pending error.
                refused = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
                raise self._lost("the connection was closed", accepted=sent and not refused)
        lines = bytes(self._received[:end]).decode("latin-1").split("\r\n")
        del self._received[: end + 4]
        version, _, rest = lines[0].partition(" ")
        code = rest[:3]
        if not version.startswith("HTTP/1.") or not (
            code.isascii() and code.isdigit()
        ):
            raise BadAnswer(f"the answer begins with {lines[0][:80]!r}, which is not HTTP/1.1")
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            name, value = name.lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return int(code), headers, version

    def _lost(self, what: str, *, accepted: bool) -> ConnectionFailed:
        if self._received:
            return BadAnswer(f"{what} in the middle of the answer's head")
        return ConnectionLost(f"{what} before an answer began", accepted=accepted)

    def _read_body(
        self, status: int, headers: dict[str, str], deadline: float, limit: int | None
    ) -> tuple[bytes, bool]:
        """The body, and whether its end was marked (else only the closing marked it)."""
        if status in (204, 304):
            return b"", True
        try:
            if "chunked" in headers.get("transfer-encoding", "").lower():
                return self._read_chunks(status, deadline, limit), True
            length = headers.get("content-length")
            if length is None:
                return self._read_to_end(status, deadline, limit), False
            if not (length.isascii() and length.isdigit()):
                raise BadAnswer(f"the answer's Content-Length is {length[:40]!r}")
            size = int(length)
            if limit is not None and size > limit:
                raise AnswerTooLarge(status, size)
            return self._take(size, deadline), True
        except ConnectionError as error:
            raise BadAnswer(f"the answer ended in the middle: {error}") from error

    def _take(self, size: int, deadline: float) -> bytes:
        if len(self._received) >= size:
            taken = bytes(self._received[:size])
            del self._received[:size]
            return taken
        body = bytearray(size)
        view = memoryview(body)
        have = len(self._received)
        view[:have] = self._received
        self._received.clear()
        while have < size:
            self._socket.settimeout(_remaining(deadline))
            count = self._socket.recv_into(view[have:])
            if not count:
                raise BadAnswer(f"the answer ended after {have} of {size} bytes")
            have += count
        return bytes(body)

    def _read_chunks(self, status: int, deadline: float, limit: int | None) -> bytes:
        body = bytearray()
        while size := self.chunk_size(deadline):
            if limit is not None and len(body) + size > limit:
                raise AnswerTooLarge(status, None)
            body += self._take(size, deadline)
            self.end_chunk(deadline)
        return bytes(body)

    def _read_to_end(self, status: int, deadline: float, limit: int | None) -> bytes:
        while self._receive(deadline):
            if limit is not None and len(self._received) > limit:
                raise AnswerTooLarge(status, None)
        if limit is not None and len(self._received) > limit:
            raise AnswerTooLarge(status, None)
        body = bytes(self._received)
        self._received.clear()
        return body


def _remaining(deadline: float) -> float:
    """Seconds to the deadline; TimeoutError when it has passed."""
    remaining = deadline - monotonic()
    if remaining <= 0:
        raise TimeoutError("the deadline has passed")
    return remaining
