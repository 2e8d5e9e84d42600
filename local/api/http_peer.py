"""The client at the other end of a connection: whether it is still there while it waits."""

from __future__ import annotations

import math
import select
import socket

__all__ = ["Peer"]

# Linux tells of the other side's end whatever is still to be read; elsewhere one has to look.
_ENDED: int = getattr(select, "POLLRDHUP", 0)
_GONE = _ENDED | select.POLLHUP | select.POLLERR | select.POLLNVAL


class Peer:
    """Watches a client's connection (plain or TLS) while an answer to it is awaited elsewhere."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._watched = _ENDED or select.POLLIN

    def stays(self, other: socket.socket, seconds: float) -> bool:
        """Wait until `other` can be read, or `seconds` are over; False once the client has left.

        A client that ends its own side of the connection has left: it waits for no answer.
        """
        client = self._socket.fileno()
        if client < 0:
            return False
        poll = select.poll()
        poll.register(other, select.POLLIN)
        poll.register(client, self._watched)
        events = dict(poll.poll(max(0, math.ceil(seconds * 1000))))
        seen = events.get(client, 0)
        if seen & _GONE:
            return False
        return not seen & select.POLLIN or self._has_more()

    def _has_more(self) -> bool:
        """Whether what can be read is something sent ahead, and not the end."""
        try:
            ahead = socket.socket.recv(self._socket, 1, socket.MSG_PEEK)  # TLS itself cannot peek
        except BlockingIOError:
            return True
        except OSError:
            return False
        if ahead:
            self._watched = 0  # an end behind it cannot be seen
        return bool(ahead)
