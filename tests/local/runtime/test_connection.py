"""The runtime's own HTTP/1.1 client against servers that say exactly what a test wants."""

import contextlib
import socket
import threading
import time

import pytest

from byoa.local.runtime.answer_stream import PIECE_BYTES
from byoa.local.runtime.connection import (
    Answer,
    AnswerTooLarge,
    BadAnswer,
    CallerLeft,
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
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n", "size"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n", "size"),
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


# --- answers read as they arrive ---


@pytest.fixture
def pool_of(scripted):
    """A pool of connections to a script, and the script's server."""
    pools = []

    def make(script):
        server = scripted(script)
        pools.append(ConnectionPool(server.address))
        return pools[-1], server

    yield make
    for pool in pools:
        pool.close()


def pieces(stream):
    deadline = time.monotonic() + 10
    while piece := stream.read(deadline):
        yield piece


def opened(pool, **options):
    return pool.open(HEAD, b"hi", time.monotonic() + 10, **options)


@pytest.mark.parametrize(
    ("head", "sent", "received"),
    [
        (b"Transfer-Encoding: chunked", [b"3;x=y\r\nab", b"c", b"\r\n2\r\nde\r", b"\n0\r\n\r\n"],
         [b"ab", b"c", b"de", b""]),
        (b"Content-Length: 4", [b"ab", b"cd"], [b"ab", b"cd"]),
        (b"Connection: close", [b"ab", b"cd"], [b"ab", b"cd"]),
    ],
)
def test_pieces_come_as_they_are_sent_and_whole(pool_of, head, sent, received):
    """STRM-01, STRM-02: the next one is sent when the one before has come."""
    go = threading.Semaphore(0)

    def script(peer, _):
        peer.recv(65536)
        peer.sendall(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % head)
        for each in sent:
            go.acquire(timeout=10)
            peer.sendall(each)

    pool, _ = pool_of(script)
    stream = opened(pool)
    assert stream.status == 200
    deadline = time.monotonic() + 10
    for expected in received:
        go.release()
        assert stream.read(deadline) == expected
    go.release()
    assert stream.read(deadline) == b""
    assert stream.read(deadline) == b""


def test_a_piece_has_an_upper_size(pool_of):
    """STRM-02."""
    pool, _ = pool_of(says(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000))
    sizes = [len(piece) for piece in pieces(opened(pool))]
    assert sum(sizes) == 300_000
    assert max(sizes) <= PIECE_BYTES


@pytest.mark.parametrize(
    ("said", "connections"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 1),
        (OK, 1),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 1),
        (OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n", 1), 3),
    ],
)
def test_a_connection_whose_stream_ended_is_used_again_where_it_may_be(
    pool_of, said, connections
):
    """HOST-11."""
    def script(peer, _):
        while peer.recv(65536):
            peer.sendall(said)

    pool, server = pool_of(script)
    for _ in range(3):
        list(pieces(opened(pool)))
    assert server.connections == connections


def test_a_stream_that_is_closed_before_its_end_closes_the_connection(pool_of):
    ended = threading.Event()

    def script(peer, _):
        peer.recv(65536)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")
        if not peer.recv(65536):
            ended.set()

    pool, _ = pool_of(script)
    stream = opened(pool)
    assert next(pieces(stream)) == b"ab"
    stream.close()
    stream.close()
    assert ended.wait(10)
    assert list(pieces(stream)) == []


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b"Content-Length: 9\r\n\r\nshort", "4 bytes too early"),
        (b"Transfer-Encoding: chunked\r\n\r\n2\r\nab", "within a chunk"),
        (b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", "before its last chunk"),
        (b"Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n", "longer"),
        (b"Content-Length: many\r\n\r\n", "Content-Length"),
    ],
)
def test_a_stream_that_is_broken_is_told_so(pool_of, said, expected):
    """STRM-06."""
    pool, _ = pool_of(says(b"HTTP/1.1 200 OK\r\n" + said))
    with pytest.raises(BadAnswer, match=expected):
        list(pieces(opened(pool)))


def test_the_deadline_holds_for_a_stream_that_trickles(pool_of):
    """HOST-31."""
    stop = threading.Event()

    def script(peer, _):
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not stop.wait(0.02):
            peer.sendall(b"x")

    pool, _ = pool_of(script)
    stream = opened(pool)
    deadline = time.monotonic() + 0.3
    try:
        with pytest.raises(TimeoutError):
            while stream.read(deadline):
                pass
    finally:
        stop.set()
        stream.close()


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"])
def test_waiting_ends_when_the_caller_has_left(pool_of, said):
    """STRM-02: before the answer and within it."""
    hold = threading.Event()
    pool, _ = pool_of(says(said, hold))
    looks = iter([True, False] if said else [False])
    try:
        with pytest.raises(CallerLeft):
            list(pieces(opened(pool, stay=lambda *_: next(looks))))
    finally:
        hold.set()


def test_the_next_exchange_of_a_connection_looks_after_no_caller(pool_of):
    def script(peer, _):
        while peer.recv(65536):
            peer.sendall(OK)

    pool, server = pool_of(script)
    looks = []
    for stay in (lambda *_: looks.append(1) or True, None):
        list(pieces(opened(pool, stay=stay)))
    assert send(pool).body == b"ok"
    assert (len(looks), server.connections) == (1, 1)


def test_an_error_is_read_as_a_whole_within_the_limit(pool_of):
    """STRM-06, HOST-32."""
    pool, server = pool_of(says(OK.replace(b"200 OK", b"400 No")))
    answer = opened(pool).whole(time.monotonic() + 10, 2)
    assert (answer.status, answer.body) == (400, b"ok")
    with pytest.raises(AnswerTooLarge):
        opened(pool).whole(time.monotonic() + 10, 1)
