"""Connections that the kernel has made and nobody has accepted yet.

uvloop accepts one in each round of its loop, and a round answers whoever has sent a request: with a
hundred busy connections the last of a hundred new ones would wait for a second (HOST-11: 250 ms).
So whoever accepts one takes others along: not all at once, for what a thousand new connections take
would keep a /ping waiting (HOST-20).

And when the last process closes a listening socket, the kernel breaks off those who wait, with the
requests that they have sent: a worker that stops takes them first.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable, Sequence

# Where Linux tells how many wait, of a listening socket: tcp_info.tcpi_unacked.
_TCP_INFO = getattr(socket, "TCP_INFO", None) if sys.platform == "linux" else None
_WAITING = slice(24, 28)
AT_ONCE = 16  # one takes about 0.1 ms


class Backlog:
    """The listeners of one of so many workers."""

    def __init__(
        self, listeners: Sequence[socket.socket], workers: int,
        protocol: Callable[[], asyncio.Protocol],
    ) -> None:
        self._listeners = listeners
        self._workers = workers
        self._protocol = protocol
        self._tasks: set[asyncio.Task[None]] = set()
        self._owed: list[socket.socket] = []  # a listener for each that is still to be accepted

    def take(self) -> None:
        """Accept this worker's share of those who wait, some in each round of the loop."""
        if self._owed:
            return
        for listener in self._listeners:
            self._owed += [listener] * -(-_waiting(listener) // self._workers)
        if self._owed:
            self._take_some()

    def _take_some(self) -> None:
        loop = asyncio.get_running_loop()
        for listener in self._owed[:AT_ONCE]:
            connection = _accept(listener)
            if connection is None:  # another worker was sooner
                continue
            task = loop.create_task(self._serve(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        del self._owed[:AT_ONCE]
        if self._owed:
            loop.call_soon(self._take_some)

    async def close(self, servers: Sequence[asyncio.AbstractServer]) -> None:
        """Close the listeners; who is connected already gets a protocol as if accepted before."""
        waiting = []
        for listener in self._listeners:
            while (connection := _accept(listener)) is not None:
                waiting.append(connection)
        for server in servers:
            server.close()
        for listener in self._listeners:
            listener.close()
        for connection in waiting:
            await self._serve(connection)
        await asyncio.gather(*self._tasks)  # of those that were accepted just before

    async def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it has left meanwhile
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)


def _waiting(listener: socket.socket) -> int:
    if _TCP_INFO is None:
        return 0
    try:
        info = listener.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _WAITING.stop)
    except OSError:  # it is closed
        return 0
    return int.from_bytes(info[_WAITING], sys.byteorder)


def _accept(listener: socket.socket) -> socket.socket | None:
    try:
        listener.setblocking(False)
        return listener.accept()[0]
    except OSError:  # there is none, or it has left, or the listener is closed
        return None
