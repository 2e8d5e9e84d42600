"""The keep-alive connections to one serving container."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeVar

from byoa.local.runtime.answer_stream import AnswerStream
from byoa.local.runtime.connection import Answer, Connection, ConnectionLost, Stay

Begun = TypeVar("Begun")

# More idle connections than this only hold the container's workers and file descriptors.
IDLE_LIMIT = 64


class ConnectionPool:
    """Lends a connection to each exchange; safe for use by many threads."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self._idle: deque[Connection] = deque()
        self._closed = False

    def exchange(
        self, head: bytes, body: bytes | bytearray, deadline: float, limit: int | None
    ) -> Answer:
        """Send over an idle connection or a new one; raises as `Connection.exchange` does."""
        answer, connection = self._send(
            lambda each: each.exchange(head, body, deadline, limit), deadline
        )
        self._release(connection, keep=answer.keep_alive)
        return answer

    def open(
        self, head: bytes, body: bytes | bytearray, deadline: float, stay: Stay | None = None
    ) -> AnswerStream:
        """The same, to read the answer's body as it arrives; raises as `Connection.begin` does."""
        begun, connection = self._send(
            lambda each: each.begin(head, body, deadline, stay), deadline
        )
        return AnswerStream(begun, connection, self._release)

    def _send(
        self, begin: Callable[[Connection], Begun], deadline: float
    ) -> tuple[Begun, Connection]:
        """What `begin` gives over an idle connection or a new one, and the connection.

        A request is sent again only when an idle connection turns out to have been closed by the
        container before it took the request: an invocation never runs twice.
        """
        while True:
            connection = self._take()
            reused = connection is not None
            if connection is None:
                connection = Connection(self.address, deadline)
            try:
                return begin(connection), connection
            except ConnectionLost as lost:
                connection.close()
                if reused and not lost.accepted:
                    continue
                raise
            except BaseException:
                connection.close()
                raise

    def _release(self, connection: Connection, *, keep: bool) -> None:
        if keep and len(self._idle) < IDLE_LIMIT:
            self._idle.append(connection)
            if self._closed:
                self.close()
        else:
            connection.close()

    def _take(self) -> Connection | None:
        """The idle connection used last, which the container is least likely to have closed."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread took the last one
                return None
            if not connection.is_stale():
                return connection
            connection.close()
        return None

    def close(self) -> None:
        """Close idle connections; one that is in use closes when its exchange ends."""
        self._closed = True
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:
                return
