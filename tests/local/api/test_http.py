"""The HTTP server over real sockets: framing, keep-alive, refusals, streaming, stopping."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import socket
import threading
import time

import pytest

from byoa.local.api.http import FileSegment, HttpServer, Request, Response


@contextlib.contextmanager
def serving(handler, **options):
    server = HttpServer(handler, "127.0.0.1", 0, **options)
    server.start()
    try:
        yield server
    finally:
        server.stop(timeout=5)


def echo(request: Request) -> Response:
    headers = [("X-Path", request.path), ("X-Query", request.query), ("X-Host", request.host)]
    return Response(200, headers, request.body.read())


@contextlib.contextmanager
def connected(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        yield sock


def exchange(server, data: bytes) -> bytes:
    """Everything that the server answers until it closes the connection."""
    with connected(server) as sock:
        sock.sendall(data)
        return b"".join(iter(lambda: sock.recv(65536), b""))


def until(sock, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        more = sock.recv(65536)
        assert more, f"the connection ended after {data!r}"
        data += more
    return data


def test_many_requests_are_served_on_one_connection():
    with serving(echo) as server, connected(server) as sock:
        for index in range(5):
            body = b"x" * index
            sock.sendall(
                b"POST /a%%20b/%d?q=%d HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b"
                % (index, index, len(body), body)
            )
            answer = until(sock, b"\r\n\r\n" + body)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"X-Path: /a%%20b/%d\r\nX-Query: q=%d\r\n" % (index, index) in answer


def test_pipelined_requests_are_answered_in_order():
    one = b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\n"
    two = b"GET /2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    with serving(echo) as server:
        answer = exchange(server, one + two)
    assert answer.index(b"X-Path: /1") < answer.index(b"X-Path: /2")
    assert answer.count(b"HTTP/1.1 200 OK") == 2


def test_a_chunked_body_is_decoded_and_its_trailer_is_skipped():
    body = b"4;ext=1\r\nWiki\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n"
    head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    with serving(echo) as server:
        assert exchange(server, head + body).endswith(b"\r\n\r\nWiki0123456789")


def test_continue_is_sent_at_once_when_the_body_is_wanted():
    with serving(echo) as server, connected(server) as sock:
        sock.sendall(
            b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        assert until(sock, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"abc")
        assert until(sock, b"abc").startswith(b"HTTP/1.1 200 OK")


def test_a_body_that_nobody_wants_is_not_asked_for():
    with serving(lambda request: Response(404)) as server:
        answer = exchange(
            server,
            b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n",
        )
    assert answer.startswith(b"HTTP/1.1 404 Not Found")
    assert b"Connection: close" in answer


def test_a_short_unread_body_is_drained_and_the_connection_kept():
    with serving(lambda request: Response(200, [], b"!")) as server, connected(server) as sock:
        for _ in range(2):
            sock.sendall(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 70000\r\n\r\n")
            sock.sendall(b"x" * 70000)
            assert b"Connection: close" not in until(sock, b"!")


def test_a_long_unread_body_closes_the_connection_and_the_answer_still_arrives():
    with serving(lambda request: Response(403, [], b"no")) as server, connected(server) as sock:
        sock.sendall(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 8000000\r\n\r\n")
        sock.sendall(b"x" * 3_000_000)
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 403 Forbidden")
    assert b"Connection: close" in answer and answer.endswith(b"no")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nA : b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nA: b\x00c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: h\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nA: b\nC: d\r\n\r\n", 400),
        (b"GET ftp://h/x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET nowhere HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"GET /" + b"a" * 20000, 414),
        (b"GET / HTTP/1.1\r\nHost: h\r\nA: " + b"a" * 70000, 431),
        (b"GET / HTTP/1.1\r\nHost: h\r\n" + b"A: b\r\n" * 300 + b"\r\n", 431),
        (b"CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nHost: h\r\nExpect: miracles\r\n\r\n", 417),
    ],
)
def test_a_malformed_head_is_refused_and_the_connection_closed(data, status):
    with serving(echo) as server:
        assert exchange(server, data).startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        b"Content-Length: 3, 3\r\n\r\nabc",
        b"Content-Length: +3\r\n\r\nabc",
        b"Content-Length: -3\r\n\r\nabc",
        b"Content-Length: 0x3\r\n\r\nabc",
        b"Content-Length: 3_0\r\n\r\nabc",
        b"Content-Length:\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 30 + b"\r\nabc\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_framing_that_could_be_read_two_ways_is_refused(framing):
    with serving(echo) as server:
        answer = exchange(server, b"POST / HTTP/1.1\r\nHost: h\r\n" + framing)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1


def test_an_unknown_transfer_encoding_is_refused_by_name():
    data = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
    with serving(echo) as server:
        answer = exchange(server, data)
    assert answer.startswith(b"HTTP/1.1 501 ") and b"gzip" in answer


def test_an_absolute_target_gives_path_and_host():
    target = b"http://Bucket.s3.amazonaws.com/k?x=1"
    data = b"GET %b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" % target
    with serving(echo) as server:
        answer = exchange(server, data)
    assert b"X-Path: /k\r\nX-Query: x=1\r\nX-Host: bucket.s3.amazonaws.com\r\n" in answer


def test_connect_goes_to_its_door_which_can_serve_through_it():
    def door(request, sock):
        assert request.target == "example.amazonaws.com:443"
        sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        server.serve_connection(sock, secure=True, host=request.target)

    def handler(request):
        return Response(200, [("X-Secure", str(request.secure))], request.host.encode())

    with serving(handler, on_connect=door) as server, connected(server) as sock:
        sock.sendall(b"CONNECT example.amazonaws.com:443 HTTP/1.1\r\nHost: e\r\n\r\n")
        until(sock, b"established\r\n\r\n")
        sock.sendall(b"GET / HTTP/1.1\r\nHost: inner\r\nConnection: close\r\n\r\n")
        answer = until(sock, b"inner")
    assert b"X-Secure: True" in answer


def test_an_http_1_0_client_gets_a_body_that_ends_with_the_connection():
    handler = lambda request: Response(200, [], iter([b"one", b"two"]))  # noqa: E731
    with serving(handler) as server:
        answer = exchange(server, b"GET / HTTP/1.0\r\n\r\n")
    assert answer.endswith(b"\r\n\r\nonetwo") and b"chunked" not in answer


def test_an_iterator_is_sent_chunk_by_chunk_as_it_produces():
    gate = threading.Event()

    def items():
        yield b"first"
        assert gate.wait(10)
        yield b""
        yield b"second"

    handler = lambda request: Response(200, [], items())  # noqa: E731
    with serving(handler) as server, connected(server) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert b"Transfer-Encoding: chunked" in until(sock, b"5\r\nfirst\r\n")
        gate.set()
        assert until(sock, b"0\r\n\r\n") == b"6\r\nsecond\r\n0\r\n\r\n"


def test_a_body_whose_iterator_fails_never_ends_properly(caplog):
    def items():
        yield b"first"
        raise RuntimeError("out of ideas")

    with serving(lambda request: Response(200, [], items())) as server:
        answer = exchange(server, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert answer.endswith(b"5\r\nfirst\r\n")
    assert "out of ideas" in caplog.text


def test_head_sends_no_body_and_closes_the_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    segments = []

    def handler(request):
        segments.append(FileSegment(os.open(path, os.O_RDONLY), 2, 5))
        return Response(200, [], segments[-1])

    with serving(handler) as server, connected(server) as sock:
        sock.sendall(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert b"Content-Length: 5\r\n" in until(sock, b"\r\n\r\n")
        sock.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert until(sock, b"23456").startswith(b"HTTP/1.1 200")
    assert [segment.source for segment in segments] == [-1, -1]


def test_a_large_file_segment_arrives_whole(tmp_path):
    path = tmp_path / "file"
    data = os.urandom(1 << 20) * 24
    path.write_bytes(data)
    with serving(lambda request: Response(200, [], FileSegment(path, 1, len(data) - 1))) as server:
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        client.request("GET", "/")
        received = client.getresponse().read()
        client.close()
    assert hashlib.sha256(received).digest() == hashlib.sha256(data[1:]).digest()


def test_a_failing_handler_answers_500_and_the_connection_survives(caplog):
    def handler(request):
        if request.path == "/bad":
            raise KeyError("lost")
        return Response(200, [], b"fine")

    with serving(handler) as server, connected(server) as sock:
        sock.sendall(b"GET /bad HTTP/1.1\r\nHost: h\r\n\r\n")
        assert until(sock, b"error\n").startswith(b"HTTP/1.1 500 ")
        sock.sendall(b"GET /good HTTP/1.1\r\nHost: h\r\n\r\n")
        assert until(sock, b"fine").startswith(b"HTTP/1.1 200 ")
    assert "KeyError: 'lost'" in caplog.text


def test_a_header_value_with_a_line_end_is_never_sent(caplog):
    handler = lambda request: Response(200, [("X", "a\r\nSet-Cookie: b")], b"")  # noqa: E731
    with serving(handler) as server:
        answer = exchange(server, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 500 ") and b"Set-Cookie" not in answer


def test_a_client_that_leaves_within_its_body_disturbs_nobody():
    with serving(echo) as server:
        with connected(server) as sock:
            sock.sendall(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nabc")
        answer = exchange(server, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_stopping_finishes_the_running_request_and_closes_idle_connections():
    started, release = threading.Event(), threading.Event()

    def handler(request):
        started.set()
        assert release.wait(10)
        return Response(200, [], b"done")

    server = HttpServer(handler, "127.0.0.1", 0)
    server.start()
    with connected(server) as idle, connected(server) as busy:
        busy.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert started.wait(10)
        stopper = threading.Thread(target=server.stop, kwargs={"timeout": 10})
        stopper.start()
        assert idle.recv(10) == b""
        release.set()
        answer = b"".join(iter(lambda: busy.recv(65536), b""))
        stopper.join(10)
        assert not stopper.is_alive()
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"done")
    assert b"Connection: close" in answer
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", server.port), timeout=2).close()


def test_stopping_cuts_a_request_that_outlasts_the_limit():
    started = threading.Event()

    def items():
        started.set()
        while True:
            yield b"x"
            time.sleep(0.02)

    server = HttpServer(lambda request: Response(200, [], items()), "127.0.0.1", 0)
    server.start()
    with connected(server) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert started.wait(10)
        server.stop(timeout=0.2)
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert not answer.endswith(b"0\r\n\r\n")
