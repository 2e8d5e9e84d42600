"""Clients that are slow, silent or hostile: they are cut off, and everybody else is answered."""

from __future__ import annotations

import json
import os
import resource
import socket
import struct
import threading
import time
from pathlib import Path

import pytest

HEAD = (
    b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: 800\r\n"
)
CHUNKED = (
    b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
LIMIT_SECONDS = 60  # for what takes two or three where nothing else runs


@pytest.fixture
def impatient(servers, door):
    """A server of each door that cuts off what does not arrive within two seconds."""
    return servers(
        door, BYOA_READ_TIMEOUT="2", BYOA_KEEPALIVE="2", BYOA_QUEUE_LIMIT="4",
        BYOA_ACCESS_LOG="1",
        SAGEMAKER_MAX_PAYLOAD_IN_MB="1",
    )


@pytest.mark.parametrize("begun", [HEAD + b"X-Slow: ", HEAD + b"\r\n1,2,3,4\n"],
                         ids=["head", "body"])
def test_a_request_that_trickles_in_is_answered_408_and_its_connection_ends(impatient, begun):
    with impatient.raw() as slow:
        slow.sendall(begun)
        answer = trickle(impatient, slow)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408"), answer
    assert b"REQUEST_TOO_SLOW" in body and b"BYOA_READ_TIMEOUT" in body
    assert b'"request_id"' in body and b"x-request-id" in head.lower()
    impatient.wait_for(
        lambda: 'status="408"} 1\n' in impatient.call("GET", "/metrics").body.decode()
    )
    impatient.wait_for(lambda: '"status":408' in impatient.log)
    (line,) = [each for each in impatient.log.splitlines() if '"status":408' in each]
    assert json.loads(line)["request_id"] == json.loads(body)["request_id"]


def test_more_slow_clients_than_threads_hold_up_nobody_for_long(impatient):
    """TRAP-08: the Flask door has a thread for each request that arrives, here 20."""
    slow = [impatient.raw() for _ in range(60)]
    try:
        for connection in slow:
            connection.sendall(HEAD)
        impatient.wait_for(lambda: impatient.ping() == 200, LIMIT_SECONDS)
        assert impatient.invoke().status == 200
        for connection in slow:
            assert ended(connection)
    finally:
        for connection in slow:
            connection.close()


@pytest.mark.parametrize("line", [
    b"GET /ping HTTP/1.1\r\n", b"POST /invocations HTTP/1.1\r\nContent-Length: 0\r\n",
], ids=["ping", "invocation"])
def test_a_head_of_100_kb_is_refused(impatient, line):
    with impatient.raw() as client:
        client.sendall(line + b"Host: x\r\nX-Long: " + b"a" * 100_000 + b"\r\n\r\n")
        answer = read_to_end(client)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431"), answer[:200]
    assert b"HEAD_TOO_LARGE" in body and b"x-request-id" in head.lower()
    assert impatient.ping() == 200


@pytest.mark.parametrize("header", [b"X-%d: " + b"a" * 1000 + b"\r\n", b"%d" + b"a" * 1000],
                         ids=["many headers", "one header"])
def test_a_head_that_never_ends_is_not_kept_in_memory(impatient, header):
    before = memory(impatient)
    with impatient.raw() as client:
        ending = False
        try:
            client.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\nX: ")
            for number in range(100_000):
                client.sendall(header % number)
        except OSError:
            ending = True
        assert ending or ended(client)
    assert impatient.invoke().status == 200
    assert memory(impatient) - before < 32 << 20


def test_a_trailer_that_never_ends_is_not_kept_in_memory(impatient):
    before = memory(impatient)
    with impatient.raw() as client:
        ending = False
        try:
            client.sendall(CHUNKED + b"0\r\nX: ")
            for _ in range(1000):
                client.sendall(b"a" * 100_000)
        except OSError:
            ending = True
        assert ending or ended(client)
    assert impatient.invoke().status == 200
    assert memory(impatient) - before < 32 << 20


def test_a_chunked_body_that_never_ends_is_cut_off_in_bounded_memory(impatient):
    """HOST-32: refused with 413, or with 408 where that comes first."""
    before = memory(impatient)
    chunk = b"%x\r\n%b\r\n" % (60_000, b"1" * 60_000)
    stop = threading.Event()
    with impatient.raw() as client:
        client.sendall(CHUNKED)

        def send() -> None:
            while not stop.is_set():
                try:
                    client.sendall(chunk)
                except OSError:
                    return

        sender = threading.Thread(target=send)
        sender.start()
        try:
            seen: list[int | None] = []
            impatient.wait_for(
                lambda: seen.append(impatient.ping()) or not sender.is_alive(), LIMIT_SECONDS
            )
            assert set(seen) == {200}
        finally:
            stop.set()
            sender.join(LIMIT_SECONDS)
    assert impatient.invoke().status == 200
    assert memory(impatient) - before < 200 << 20


def test_thousands_of_idle_connections_hold_up_nobody_and_are_closed(servers, door):
    """HOST-11: those who connect and say nothing, and those who said something once."""
    server = servers(door, BYOA_KEEPALIVE="10", BYOA_QUEUE_LIMIT="4")
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    idle: list[socket.socket] = []
    try:
        for number in range(min(2000, (soft - 300) // 2)):
            connection = server.raw()
            idle.append(connection)
            if number < 100:
                connection.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
                assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        assert server.ping() == 200
        assert server.invoke().status == 200
        for connection in idle:
            assert ended(connection)
    finally:
        for connection in idle:
            connection.close()
    assert server.ping() == 200


def test_a_client_that_closes_its_half_or_vanishes_harms_nobody(impatient):
    workers = impatient.workers()
    for parting in (lambda each: each.shutdown(socket.SHUT_WR), reset):
        for begun in (b"", b"POST /invoc", HEAD + b"\r\n1,2", CHUNKED + b"4\r\n1,"):
            with impatient.raw() as client:
                client.sendall(begun)
                parting(client)
                if parting is not reset:
                    assert ended(client)
    assert impatient.invoke().status == 200
    assert impatient.workers() == workers


def test_an_answer_that_nobody_reads_is_given_up(servers, door):
    server = servers(door, BYOA_READ_TIMEOUT="2", SAGEMAKER_MAX_PAYLOAD_IN_MB="25")
    (worker,) = server.workers()
    body = b"911,0,0,0\n" * 800_000  # each answered by more than its own length
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(LIMIT_SECONDS)
        client.connect(("127.0.0.1", server.port))
        client.sendall(
            b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body
        )
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        port = client.getsockname()[1]
        assert held(worker, port)
        server.wait_for(lambda: not held(worker, port), LIMIT_SECONDS)
    assert server.invoke().status == 200


def test_what_is_no_http_is_answered_400_with_a_request_id(impatient):
    with impatient.raw() as client:
        client.sendall(b"\x16\x03\x01\x02\x00\x01\x00 nonsense\r\n\r\n")
        answer = read_to_end(client)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400"), answer
    assert b"x-request-id" in head.lower() and b"REQUEST_MALFORMED" in body


def trickle(server, slow: socket.socket) -> bytes:
    """Send a byte now and then until the server answers; what it said, to its end."""
    slow.settimeout(0.2)
    end = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < end:
        assert server.ping() == 200
        assert server.invoke().status == 200
        try:
            slow.sendall(b"1")
            answer = slow.recv(65536)
        except TimeoutError:
            continue
        slow.settimeout(LIMIT_SECONDS)
        return answer + read_to_end(slow)
    raise AssertionError("a slow request is not cut off")


def read_to_end(connection: socket.socket) -> bytes:
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass  # what was sent to a server that had refused already
    return b"".join(parts)


def ended(connection: socket.socket) -> bool:
    """Whether the server ends the connection, before long."""
    connection.settimeout(LIMIT_SECONDS)
    read_to_end(connection)  # else TimeoutError
    return True


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def memory(server) -> int:
    """Resident bytes of the server's workers."""
    pages = (
        int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in server.workers()
    )
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def held(pid: int, port: int) -> bool:
    """Whether a process has the connection of the client at this port."""
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[2].endswith(f":{port:04X}") and fields[9] != "0":
            return True
    return False
