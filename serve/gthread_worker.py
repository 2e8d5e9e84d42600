"""gunicorn's threads worker, with two of its waits mended.

gunicorn lingers up to two seconds on a connection that it closes first. Its main thread does so,
and meanwhile the worker accepts nothing: a few clients that are slow to close hold up /ping.
And a stopping worker keeps its port open without accepting, so that whoever connects meanwhile is
cut off in the end, where a refusal at once would have sent him elsewhere.
"""

from __future__ import annotations

import socket
import time
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

_LINGER_SECONDS = 2.0
_CHUNK_BYTES = 64 * 1024


class FlaskWorker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's worker class for the Flask door."""

    def handle(self, conn: Any) -> Any:
        """Answer a request on a pool thread; a false result means that the connection ends."""
        keep = super().handle(conn)
        if not keep:
            _linger(conn.sock)
        return keep

    def set_accept_enabled(self, enabled: bool) -> None:
        super().set_accept_enabled(enabled)
        if enabled or self.alive:
            return
        for listener in self.sockets:
            listener.setblocking(False)
            before = -1
            while before != self.nr_conns:  # those who are connected already are served
                before = self.nr_conns
                self.accept(listener)
            listener.close()


def _linger(connection: socket.socket) -> None:
    """Read until the client closes, so that nothing is left for the main thread to wait for."""
    end = time.monotonic() + _LINGER_SECONDS
    try:
        connection.shutdown(socket.SHUT_WR)
        while (left := end - time.monotonic()) > 0:
            connection.settimeout(left)
            if not connection.recv(_CHUNK_BYTES):
                return
    except OSError:
        pass
    try:
        connection.shutdown(socket.SHUT_RD)  # from now on a read ends at once
    except OSError:
        pass
