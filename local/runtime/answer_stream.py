"""An answer of a serving container whose body is read piece by piece, as it arrives (STRM-01)."""

from __future__ import annotations

from typing import Protocol

from byoa.local.runtime.connection import Answer, AnswerTooLarge, BadAnswer, Connection, Head

# Bytes of a piece at most. A piece is never held back to fill it.
PIECE_BYTES = 65_536


class Release(Protocol):
    """Takes a connection back, to be used again where `keep` says so, else to be closed."""

    def __call__(self, connection: Connection, *, keep: bool) -> None: ...


class AnswerStream:
    """Owns the connection until the body has ended, or `close`. Header names are in lower case."""

    def __init__(self, head: Head, connection: Connection, release: Release) -> None:
        self.status = head.status
        self.headers = head.headers
        self._keep = head.keep_alive
        self._connection: Connection | None = connection
        self._release = release
        empty = head.status in (204, 304)
        self._chunked = not empty and (
            "chunked" in head.headers.get("transfer-encoding", "").lower()
        )
        self._within_chunk = False
        self._left: int | None = 0  # of the chunk or the body; None: until the connection ends
        if not self._chunked and not empty:
            self._left = self._declared(head.headers.get("content-length"))

    def _declared(self, length: str | None) -> int | None:
        if length is None:
            return None
        if not (length.isascii() and length.isdigit()):
            self.close()
            raise BadAnswer(f"the answer's Content-Length is {length[:40]!r}")
        return int(length)

    def read(self, deadline: float) -> bytes:
        """The next bytes, up to PIECE_BYTES of what has arrived, waited for where nothing has;
        none at the end. Raises TimeoutError at the deadline, CallerLeft and BadAnswer, each of
        which closes it.
        """
        connection = self._connection
        if connection is None:
            return b""
        try:
            return self._next(connection, deadline)
        except ConnectionError as error:
            self.close()
            raise BadAnswer(f"the answer ended in the middle: {error}") from error
        except BaseException:
            self.close()
            raise

    def _next(self, connection: Connection, deadline: float) -> bytes:
        if self._chunked and not self._left:
            if self._within_chunk:
                connection.end_chunk(deadline)
            self._left = connection.chunk_size(deadline)
            self._within_chunk = True
        if self._left == 0:
            self._finish(self._keep)
            return b""
        most = PIECE_BYTES if self._left is None else min(self._left, PIECE_BYTES)
        piece = connection.some(most, deadline)
        if self._left is not None:
            if not piece:
                raise BadAnswer(f"the answer ended {self._left} bytes too early")
            self._left -= len(piece)
        elif not piece:
            self._finish(False)
        return piece

    def _finish(self, keep: bool) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._release(connection, keep=keep)

    def whole(self, deadline: float, limit: int) -> Answer:
        """All of it, where it has not been read from yet; raises AnswerTooLarge, too."""
        body = bytearray()
        try:
            while piece := self.read(deadline):
                body += piece
                if len(body) > limit:
                    raise AnswerTooLarge(self.status, None)
        finally:
            self.close()
        return Answer(self.status, self.headers, bytes(body), self._keep)

    def close(self) -> None:
        """Close the connection where the body has not ended: so its container learns of it."""
        self._finish(False)
