"""The checker's HTTP client shows the faults of framing that a library's client would hide."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from byoa.local.check.hosting_http import (
    CLOSED,
    GARBLED,
    LATE,
    REFUSED,
    Address,
    Connection,
    NoReply,
    chunked,
    exchange,
)

Say = Callable[[bytes], Address]


@pytest.fixture
def saying() -> Iterator[Say]:
    """A server that takes one connection, reads something and says the same to everybody."""
    threads: list[threading.Thread] = []

    def start(said: bytes) -> Address:
        listener = socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            with listener:
                peer, _ = listener.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(said)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return "127.0.0.1", listener.getsockname()[1]

    yield start
    for each in threads:
        each.join(10)


@pytest.mark.parametrize(
    ("said", "status", "body", "framing", "stays_open"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, b"hi", "length", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 200, b"", "length",
         False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, b"hi", "length", False),
        (b"HTTP/1.1 415 No\r\n\r\nuntil the end", 415, b"until the end", "close", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nhi\r\n1\r\n!\r\n0\r\n"
         b"Later: field\r\n\r\n", 200, b"hi!", "chunked", True),
        (b"HTTP/1.1 204 None\r\n\r\n", 204, b"", "none", True),
    ],
)
def test_an_answer_is_read_to_the_end_that_it_announces(
    saying: Say, said: bytes, status: int, body: bytes, framing: str, stays_open: bool
) -> None:
    """HOST-12."""
    reply = exchange(saying(said), "GET", "/ping", timeout=10)
    assert (reply.status, reply.body, reply.framing) == (status, body, framing)
    assert reply.stays_open is stays_open


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (b"", CLOSED, "without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", CLOSED, "in the middle of its headers"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi", CLOSED, "after 2 of 5 bytes"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", CLOSED, "last chunk"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nhi\r\n", GARBLED, "longer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhi\r\n", GARBLED, "'hi'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nhi", GARBLED, "'two'"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", GARBLED, "'no colon'"),
        (b"SSH-2.0-OpenSSH\r\n", GARBLED, "SSH-2.0"),
        (b"HTTP/1.1 fine\r\n\r\n", GARBLED, "status line"),
    ],
)
def test_a_fault_of_framing_is_named(saying: Say, said: bytes, kind: str, words: str) -> None:
    """HOST-12."""
    with pytest.raises(NoReply) as raised:
        exchange(saying(said), "GET", "/ping", timeout=10)
    assert raised.value.kind == kind
    assert words in str(raised.value)


def test_an_interim_answer_is_skipped_and_remembered(saying: Say) -> None:
    said = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    reply = exchange(saying(said), "POST", "/invocations", body=b"1", timeout=10)
    assert reply.status == 200
    assert reply.continued


def test_what_follows_an_answer_is_kept_for_the_next(saying: Say) -> None:
    said = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nhi"
    with Connection(saying(said)) as connection:
        connection.send(b"GET /ping HTTP/1.1\r\n\r\n")
        assert connection.reply(timeout=10).body == b"h"
        assert connection.left_over == b"i"


def test_a_body_that_is_thrown_away_is_still_counted(saying: Say) -> None:
    said = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi"
    with pytest.raises(NoReply, match="after 2 of 5 bytes"):
        exchange(saying(said), "GET", "/", timeout=10, discard=True)
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
    assert exchange(saying(whole), "GET", "/", timeout=10, discard=True).body == b""


def test_a_server_that_says_nothing_is_late_and_one_that_is_not_there_refuses() -> None:
    """HOST-20."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = ("127.0.0.1", silent.getsockname()[1])
        with pytest.raises(NoReply) as late:
            exchange(address, "GET", "/ping", timeout=0.2)
    assert late.value.kind == LATE
    with pytest.raises(NoReply) as refused:
        exchange(address, "GET", "/ping", timeout=5)
    assert refused.value.kind == REFUSED


def test_a_body_in_chunks_is_the_same_body() -> None:
    coded = chunked(bytes(range(100)))
    found = b""
    while True:
        size, _, coded = coded.partition(b"\r\n")
        length = int(size, 16)
        found, coded = found + coded[:length], coded[length + 2 :]
        if not length:
            break
    assert found == bytes(range(100))
