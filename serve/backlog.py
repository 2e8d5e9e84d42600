"""Connections that the kernel has made and nobody has accepted yet.

When the last process closes a listening socket, the kernel breaks them off, and with them requests
that their clients have sent. So a worker that stops takes them first.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence


async def close_and_serve(
    servers: Sequence[asyncio.AbstractServer], listeners: Sequence[socket.socket],
    protocol: Callable[[], asyncio.Protocol],
) -> None:
    """Close the listeners; who is connected already gets a protocol as if accepted before."""
    waiting = []
    for listener in listeners:
        listener.setblocking(False)
        with contextlib.suppress(OSError):  # in the end there is none
            while True:
                waiting.append(listener.accept()[0])
    for server in servers:
        server.close()
    for listener in listeners:
        listener.close()
    loop = asyncio.get_running_loop()
    for connection in waiting:
        with contextlib.suppress(OSError):  # it has left meanwhile
            await loop.connect_accepted_socket(protocol, connection)
