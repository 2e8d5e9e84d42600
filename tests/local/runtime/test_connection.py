"""The runtime's own HTTP/1.1 client against servers that say exactly what a test wants."""

import contextlib
import socket
import threading
import time

import pytest

from byoa.local.runtime.connection import (
    Answer,
    AnswerTooLarge,
    BadAnswer,
    Connection,
    ConnectionLost,
    Unreachable,
)
from byoa.local.runtime.connection_pool import ConnectionPool

HEAD = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Scripted:
    """A listener; `script(connection, number)` plays the server of each connection."""

    def __init__(self, script) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.connections = 0
        self._script = script
        self._threads = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._play, args=(peer, self.connections))
            self._threads.append(thread)
            thread.start()

    def _play(self, peer, number) -> None:
        with peer, contextlib.suppress(OSError):
            self._script(peer, number)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in [self._thread, *self._threads]:
            thread.join(5)


@pytest.fixture
def scripted():
    servers = []

    def make(script):
        servers.append(Scripted(script))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


def says(data: bytes, hold: threading.Event | None = None):
    def script(peer, _):
        peer.recv(65536)
        peer.sendall(data)
        if hold is not None:
            hold.wait(5)
    return script


def exchange(server, *, seconds: float = 5.0, limit: int | None = None, body=b"hi") -> Answer:
    deadline = time.monotonic() + seconds
    connection = Connection(server.address, deadline)
    try:
        return connection.exchange(HEAD, body, deadline, limit)
    finally:
        connection.close()


def test_an_answer_with_a_length_keeps_the_connection(scripted):
    answer = exchange(scripted(says(OK)))
    assert (answer.status, answer.body, answer.keep_alive) == (200, b"ok", True)


def test_a_chunked_answer_is_put_together_and_its_trailers_are_passed_over(scripted):
    answer = exchange(scripted(says(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n"
    )))
    assert (answer.body, answer.keep_alive) == (b"abcde", True)


def test_an_answer_that_ends_with_the_connection_is_whole_and_not_kept(scripted):
    answer = exchange(scripted(says(b"HTTP/1.0 200 OK\r\n\r\nto the end")))
    assert (answer.body, answer.keep_alive) == (b"to the end", False)


def test_an_interim_answer_is_passed_over(scripted):
    assert exchange(scripted(says(b"HTTP/1.1 100 Continue\r\n\r\n" + OK))).status == 200


def test_connection_close_is_honoured(scripted):
    answer = exchange(scripted(says(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))))
    assert not answer.keep_alive


def test_header_names_are_case_insensitive_and_repeats_are_joined(scripted):
    """HOST-35."""
    answer = exchange(scripted(says(
        b"HTTP/1.1 200 OK\r\nX-A: 1\r\nx-a: 2\r\nCONTENT-LENGTH: 0\r\n\r\n"
    )))
    assert answer.headers["x-a"] == "1, 2"


def test_an_answer_in_many_small_pieces_is_put_together(scripted):
    def script(peer, _):
        peer.recv(65536)
        for each in OK:
            peer.sendall(bytes([each]))
            time.sleep(0.001)
    assert exchange(scripted(script)).body == b"ok"


def test_a_refusal_that_comes_before_the_body_was_read_is_the_answer(scripted):
    """A server may answer 413 at once and close: its words must not be lost to a broken pipe."""
    def script(peer, _):
        peer.recv(1024)
        peer.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(65536):
            pass
    answer = exchange(scripted(script), body=b"x" * 4_000_000)
    assert (answer.status, answer.body) == (413, b"big")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "5 of 9 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", "Content-Length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "size"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n", "longer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab", "ended"),
        (b"HTTP/1.1 200 OK\r\nCont", "in the middle"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, "larger than"),
    ],
)
def test_an_answer_that_is_broken_is_told_so(scripted, said, expected):
    with pytest.raises(BadAnswer, match=expected):
        exchange(scripted(says(said)))


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n" + b"x" * 11,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n" + b"x" * 11 + b"\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 11,
    ],
)
def test_an_answer_over_the_limit_is_refused_however_it_is_framed(scripted, said):
    """HOST-32."""
    with pytest.raises(AnswerTooLarge):
        exchange(scripted(says(said)), limit=10)


def test_the_deadline_holds_for_the_whole_exchange(scripted):
    """HOST-31: an answer that trickles is late, however regularly it does."""
    stop = threading.Event()

    def script(peer, _):
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not stop.wait(0.02):
            peer.sendall(b"x")

    server = scripted(script)
    try:
        with pytest.raises(TimeoutError):
            exchange(server, seconds=0.3)
    finally:
        stop.set()


def test_a_port_where_nothing_listens_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
    with pytest.raises(Unreachable, match="refused"):
        Connection(address, time.monotonic() + 5)


def test_a_server_that_takes_the_request_and_dies_has_accepted_it(scripted):
    def script(peer, _):
        received = b""
        while not received.endswith(b"hi"):
            received += peer.recv(65536)
    with pytest.raises(ConnectionLost) as lost:
        exchange(scripted(script))
    assert lost.value.accepted


# --- the pool ---


def send(pool: ConnectionPool) -> Answer:
    return pool.exchange(HEAD, b"hi", time.monotonic() + 5, None)


def test_the_pool_sends_one_request_after_another_over_one_connection(scripted):
    """HOST-11."""
    def script(peer, _):
        while peer.recv(65536):
            peer.sendall(OK)
    server = scripted(script)
    pool = ConnectionPool(server.address)
    for _ in range(5):
        assert send(pool).body == b"ok"
    pool.close()
    assert server.connections == 1


def test_an_idle_connection_that_the_server_closed_costs_no_request(scripted):
    server = scripted(says(OK))  # answers once, then closes
    pool = ConnectionPool(server.address)
    for _ in range(3):
        assert send(pool).status == 200
        time.sleep(0.05)
    pool.close()
    assert server.connections == 3


def test_a_request_that_meets_the_closing_of_its_connection_is_sent_again(scripted, monkeypatch):
    """The close may come between the look at the connection and the sending."""
    monkeypatch.setattr(Connection, "is_stale", lambda self: False)
    server = scripted(says(OK))
    pool = ConnectionPool(server.address)
    for _ in range(3):
        assert send(pool).status == 200
        time.sleep(0.05)
    pool.close()
    assert server.connections == 3


def test_a_request_that_was_accepted_is_never_sent_again(scripted):
    """An invocation must not run twice: the second request of the connection kills the server."""
    taken = []

    def script(peer, _):
        taken.append(peer.recv(65536))
        peer.sendall(OK)
        taken.append(peer.recv(65536))

    server = scripted(script)
    pool = ConnectionPool(server.address)
    send(pool)
    with pytest.raises(ConnectionLost):
        send(pool)
    pool.close()
    assert len(taken) == 2
    assert server.connections == 1


def test_a_connection_with_bytes_that_nobody_asked_for_is_not_used_again(scripted):
    server = scripted(says(OK + OK))
    pool = ConnectionPool(server.address)
    send(pool)
    time.sleep(0.05)
    send(pool)
    pool.close()
    assert server.connections == 2
