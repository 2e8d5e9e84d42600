"""Connections that wait to be accepted."""

from __future__ import annotations

import asyncio
import socket
import sys

import pytest

from byoa.serve.backlog import AT_ONCE, Backlog


class Greeting(asyncio.Protocol):
    """Says hello."""

    def connection_made(self, transport):
        transport.write(b"hello")
        transport.close()


class Counting(asyncio.Protocol):
    """Counts the connections that are made."""

    def __init__(self, made: list[int]) -> None:
        self.made = made

    def connection_made(self, transport):
        self.made.append(1)
        transport.close()


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0), backlog=16) as made:
        yield made


def connected(listener: socket.socket, count: int) -> list[socket.socket]:
    return [socket.create_connection(listener.getsockname(), timeout=20) for _ in range(count)]


def greeted(clients: list[socket.socket]) -> int:
    """How many have been greeted by now."""
    found = 0
    for client in clients:
        client.setblocking(False)
        try:
            found += client.recv(5) == b"hello"
        except BlockingIOError:
            pass
        client.close()
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how many wait")
@pytest.mark.parametrize(("workers", "taken"), [(1, 5), (2, 3), (5, 1), (8, 1)])
def test_a_worker_takes_its_share_of_those_who_wait(listener, workers, taken):
    """HOST-11."""
    clients = connected(listener, 5)

    async def take() -> None:
        Backlog([listener], workers, Greeting).take()
        await asyncio.sleep(0.2)

    asyncio.run(take())
    assert greeted(clients) == taken


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how many wait")
def test_a_crowd_is_taken_in_several_rounds_so_that_others_have_their_turn():
    """HOST-20."""
    crowd = 3 * AT_ONCE
    with socket.create_server(("127.0.0.1", 0), backlog=crowd) as listener:
        clients = connected(listener, crowd)

        async def take() -> int:
            made: list[int] = []
            Backlog([listener], 1, lambda: Counting(made)).take()
            while not made:
                await asyncio.sleep(0)
            first = len(made)
            while len(made) < crowd:
                await asyncio.sleep(0.01)
            return first

        assert asyncio.run(asyncio.wait_for(take(), 30)) <= AT_ONCE
        for client in clients:
            client.close()


def test_where_nobody_waits_nothing_is_taken(listener):
    async def take() -> None:
        Backlog([listener], 1, Greeting).take()

    asyncio.run(take())


def test_who_waits_when_the_listeners_close_is_served(listener):
    """HOST-03."""
    clients, address = connected(listener, 5), listener.getsockname()

    async def close() -> None:
        backlog = Backlog([listener], 4, Greeting)
        backlog.take()  # has accepted some, of which nobody has heard yet
        await backlog.close([])
        await asyncio.sleep(0.2)

    asyncio.run(close())
    assert greeted(clients) == 5
    with pytest.raises(OSError):
        socket.create_connection(address, 20)
