"""The keep-alive connections to one serving container."""

from __future__ import annotations

from collections import deque

from byoa.local.runtime.connection import Answer, Connection, ConnectionLost

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
        """Send over an idle connection or a new one; raises as `Connection.exchange` does.

        A request is sent again only when an idle connection turns out to have been closed by the
        container before it took the request: an invocation never runs twice.
        """
        while True:
            connection = self._take()
            reused = connection is not None
            if connection is None:
                connection = Connection(self.address, deadline)
            try:
                answer = connection.exchange(head, body, deadline, limit)
            except ConnectionLost as lost:
                connection.close()
                if reused and not lost.accepted:
                    continue
                raise
            except BaseException:
                connection.close()
                raise
            if answer.keep_alive and len(self._idle) < IDLE_LIMIT:
                self._idle.append(connection)
                if self._closed:
                    self.close()
            else:
                connection.close()
            return answer

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
