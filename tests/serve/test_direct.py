"""Small requests to a quick model, which the express lane answers where they are read.

Every door must answer alike: the same tests run against all of them.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

ROWS = {"1,2,3,4\n": 30.0, "1,0,0,0\n": 1.0, "0,1,0,0\n": 2.0, "0,0,1,0\n": 3.0}


@pytest.fixture
def quick(shared_servers, door):
    """A server whose models have proved to be quick, whichever worker answers."""
    server = shared_servers(door)
    for _ in range(100):
        assert server.invoke().status == 200
    return server


def request(row: str = "1,2,3,4\n", *headers: str, version: str = "1.1") -> bytes:
    lines = [
        f"POST /invocations HTTP/{version}", "Host: x", "Content-Type: text/csv",
        f"Content-Length: {len(row)}", *headers,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n" + row).encode()


class Client:
    """One connection, whose answers are read one by one."""

    def __init__(self, server) -> None:
        self.socket: socket.socket = server.raw()
        self.rest = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *data: bytes) -> Client:
        self.socket.sendall(b"".join(data))
        return self

    def answer(self) -> tuple[int, bytes, bytes]:
        """Status, head and body of the next answer."""
        while b"\r\n\r\n" not in self.rest:
            self._more()
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        (length,) = re.findall(rb"(?i)\r\ncontent-length: (\d+)", head)
        while len(self.rest) < int(length):
            self._more()
        body, self.rest = self.rest[: int(length)], self.rest[int(length) :]
        return int(head[9:12]), head.lower(), body

    def prediction(self) -> float:
        status, _, body = self.answer()
        assert status == 200, body
        (value,) = json.loads(body)["predictions"]
        return float(value)

    def is_closed(self) -> bool:
        try:
            return not self.socket.recv(1)
        except ConnectionResetError:
            return True

    def _more(self) -> None:
        data = self.socket.recv(65536)
        assert data, f"the connection ends behind {self.rest!r}"
        self.rest += data


def test_a_request_in_pieces_is_answered_when_it_is_whole(quick):
    """HOST-11."""
    data = request()
    for cuts in ((1,), (20, 21), (len(data) - 8,), (len(data) - 3, len(data) - 1)):
        with Client(quick) as client:
            for start, stop in zip((0, *cuts), (*cuts, len(data)), strict=True):
                client.send(data[start:stop])
                time.sleep(0.02)  # so that they are read one by one
            assert client.prediction() == 30.0


def test_requests_sent_without_waiting_are_answered_in_order(quick):
    """Also those among them that take another way: /ping, an error, a slow call of predict."""
    with Client(quick) as client:
        client.send(
            *(request(row) for row in ROWS),
            b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n",
            request("1,x,3,4\n"), request("906,0,0,0\n"), request(), request("902,0,0,0\n"),
            request("0,1,0,0\n"),
        )
        assert [client.prediction() for _ in ROWS] == list(ROWS.values())
        assert b"ready" in client.answer()[2]
        status, _, body = client.answer()
        assert (status, json.loads(body)["where"]) == (400, "record 1, column 2")
        assert client.prediction() == 906.0
        assert client.prediction() == 30.0
        assert client.answer()[0] == 500
        assert client.prediction() == 2.0


def test_requests_sent_without_waiting_are_answered_in_order_from_the_models_thread(servers, door):
    server = servers(door, BYOA_INLINE="0")
    with Client(server) as client:
        client.send(*(request(row) for row in [*ROWS, "906,0,0,0\n", "1,x,0,0\n", *ROWS]))
        assert [client.prediction() for _ in ROWS] == list(ROWS.values())
        assert client.prediction() == 906.0
        assert client.answer()[0] == 400
        assert [client.prediction() for _ in ROWS] == list(ROWS.values())


def test_what_waits_for_the_model_when_its_client_leaves_is_dropped(servers):
    server = servers("express", BYOA_INLINE="0", BYOA_MAX_BATCH="1")
    with Client(server) as slow, Client(server) as leaving:
        slow.send(request("914,0,0,0\n"))  # three seconds
        server.wait_for(lambda: "byoa_requests_in_flight 2\n" in metrics(server))
        leaving.send(request())
        server.wait_for(lambda: "byoa_queue_depth 1\n" in metrics(server))
        leaving.socket.close()
        server.wait_for(lambda: 'route="/invocations",status="499"} 1\n' in metrics(server))
        assert slow.prediction() == 914.0
    server.wait_for(lambda: "byoa_queue_depth 0\n" in metrics(server))
    assert "byoa_predict_seconds_count 1\n" in metrics(server)


@pytest.mark.parametrize("row", ["1,2,3,4\n", "906,0,0,0\n"], ids=["quick", "slow"])
def test_what_follows_a_request_and_is_no_http_is_refused_behind_its_answer(quick, row):
    with Client(quick) as client:
        client.send(request(row), b"\x00 is no HTTP\r\n\r\n")
        assert client.prediction() == (30.0 if row.startswith("1") else 906.0)
        status, head, body = client.answer()
        assert status == 400 and b"x-request-id" in head and b"REQUEST_MALFORMED" in body
        assert client.is_closed()


def test_what_follows_is_refused_behind_an_answer_of_the_models_thread(servers, door):
    server = servers(door, BYOA_INLINE="0", BYOA_MAX_HEAD_BYTES="1024")
    for following, code in (
        (b"\x00 is no HTTP\r\n\r\n", b"REQUEST_MALFORMED"),
        (request("1,2,3,4\n", "X-Long: " + "a" * 2000), b"HEAD_TOO_LARGE"),
    ):
        with Client(server) as client:
            client.send(request("906,0,0,0\n"), following)
            assert client.prediction() == 906.0
            status, _, body = client.answer()
            assert status in (400, 431) and code in body
            assert client.is_closed()
    server.wait_for(lambda: "byoa_requests_in_flight 1\n" in metrics(server))


def test_thousands_of_requests_in_one_go_are_all_answered(quick):
    """Whatever part of a head the last packet ends with."""
    with Client(quick) as client:
        sender = threading.Thread(target=client.send, args=(request() * 3000,))
        sender.start()
        assert {client.prediction() for _ in range(3000)} == {30.0}
        sender.join()


def test_a_client_that_sends_without_reading_does_not_fill_the_memory(servers):
    server = servers("express", BYOA_MAX_BATCH="1", BYOA_INLINE="0")
    (worker,) = server.workers()
    data = request("906,0,0,0\n") * 1000
    with Client(server) as client:
        client.socket.setblocking(False)
        before, sent, until = resident(worker), 0, time.monotonic() + 3
        while time.monotonic() < until and sent < 30 << 20:
            try:
                sent += client.socket.send(data)
            except BlockingIOError:
                time.sleep(0.01)
        grown = resident(worker) - before
    assert grown < 60 << 20, f"{grown >> 20} MB for {sent >> 20} MB"
    assert server.ping() == 200


def test_of_many_requests_that_a_client_leaves_behind_only_the_first_is_answered(servers):
    """While they are queued nothing is read, so that it is the first answer that does not arrive.
    """
    server = servers("express", BYOA_MAX_BATCH="1", BYOA_INLINE="0")
    with Client(server) as slow:
        slow.send(request("914,0,0,0\n"))
        for _ in range(5):
            with Client(server) as leaving:
                leaving.send(request("914,0,0,0\n") * 3, b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert slow.prediction() == 914.0
    assert server.invoke().status == 200
    assert "byoa_predict_seconds_count 7\n" in metrics(server)


def test_a_trailer_is_no_header(server):
    """Who looks at the headers in front of the server must see what it sees."""
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with Client(server) as client:
        client.send(head, b"8\r\n1,2,3,4\n\r\n0\r\nContent-Type: text/csv\r\n\r\n")
        assert client.answer()[0] == 415


def test_a_connection_lives_on_behind_every_error(quick):
    with Client(quick) as client:
        for row, status in (("902,0,0,0\n", 500), ("1,2\n", 400), ("904,0,0,0\n", 500),
                            ("903,0,0,0\n", 500), ("907,0,0,0\n", 500)):
            assert client.send(request(row)).answer()[0] == status
            assert client.send(request()).prediction() == 30.0


@pytest.mark.parametrize(("version", "headers"), [
    ("1.1", ["Connection: close"]), ("1.0", []),
])
def test_a_client_that_wants_no_more_is_not_kept(quick, version, headers):
    with Client(quick) as client:
        client.send(request("0,0,1,0\n", *headers, version=version))
        assert client.prediction() == 3.0
        assert client.is_closed()


def test_a_client_that_waits_to_be_asked_for_the_body_is_asked(quick):
    head, _, body = request("1,2,3,4\n", "Expect: 100-continue").partition(b"\r\n\r\n")
    with Client(quick) as client:
        client.send(head, b"\r\n\r\n")
        assert client.socket.recv(100).startswith(b"HTTP/1.1 100")
        client.send(body)
        client.rest = client.rest.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
        assert client.prediction() == 30.0


def test_headers_given_twice_and_a_query_are_as_they_always_are(quick):
    with Client(quick) as client:
        status, _, body = client.send(
            request("1,0,0,0\n", "Accept: application/pdf", "Accept: text/csv")
        ).answer()
        assert (status, body.strip()) == (200, b"1.0")
        client.send(request().replace(b"/invocations ", b"/invocations?a=b "))
        assert client.prediction() == 30.0
        client.send(request().replace(b"/invocations ", b"/invoc%61tions "))
        assert client.prediction() == 30.0


def test_the_answer_has_a_date_a_type_and_a_length(quick):
    with Client(quick) as client:
        _, head, body = client.send(request()).answer()
    assert re.search(rb"\r\ndate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d gmt", head), head
    assert b"\r\ncontent-type: application/json" in head
    assert b"\r\ncontent-length: %d" % len(body) in head


def test_a_client_that_leaves_within_its_body_is_counted_as_gone(servers, door):
    server = servers(door)
    with Client(server) as client:
        client.send(request()[:-4])
        server.wait_for(lambda: "byoa_requests_in_flight 2\n" in metrics(server))
    server.wait_for(lambda: re.search(r'/invocations",status="4\d\d"} 1\n', metrics(server)))
    server.wait_for(lambda: "byoa_requests_in_flight 1\n" in metrics(server))  # this one


def test_a_direct_answer_is_counted_and_logged_with_its_times(servers, door):
    server = servers(door, BYOA_ACCESS_LOG="1")
    for number in range(60):
        assert server.invoke(X_Request_Id=f"id-{number}").status == 200
    server.wait_for(lambda: '"id-59"' in server.log)
    (line,) = [json.loads(each) for each in server.log.splitlines() if '"id-59"' in each]
    assert (line["path"], line["status"], line["records"]) == ("/invocations", 200, 1)
    assert line["bytes_in"] == 8 and line["bytes_out"] > 10
    assert line["batch_records"] == 1
    assert 0 < line["predict_ms"] <= line["total_ms"]
    assert 'route="/invocations",status="200"} 60\n' in metrics(server)
    server.wait_for(lambda: "byoa_requests_in_flight 1\n" in metrics(server))


@pytest.mark.parametrize("door", ["express", "express-gunicorn"])
def test_an_empty_line_is_no_sign_of_life(servers, door):
    """On the Flask door it takes a thread, until BYOA_READ_TIMEOUT."""
    server = servers(door, BYOA_KEEPALIVE="2")
    with Client(server) as client:
        client.send(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n").answer()
        client.send(b"\r\n").socket.settimeout(30)
        assert client.is_closed()


def test_an_idle_connection_is_closed_after_its_time_and_not_before(servers, door):
    """HOST-11: counted from its last answer, not from its beginning."""
    server = servers(door, BYOA_KEEPALIVE="5")
    with Client(server) as client:
        for _ in range(4):
            assert client.send(request()).prediction() == 30.0
            time.sleep(1.5)
        client.socket.settimeout(30)
        assert client.is_closed()


def test_a_request_that_is_coming_in_at_sigterm_is_answered(servers, door):
    """HOST-03, CHK-08."""
    server = servers(door)
    for _ in range(30):
        assert server.invoke().status == 200
    data = request()
    with Client(server) as client, Client(server) as idle:
        assert idle.send(request()).prediction() == 30.0
        client.send(data[:-4])
        server.wait_for(lambda: "byoa_requests_in_flight 2\n" in metrics(server))
        server.terminate()
        time.sleep(0.5)  # it must not have ended by then
        client.send(data[-4:])
        assert client.prediction() == 30.0
        assert client.is_closed() and idle.is_closed()
    assert server.process.wait(20) == 0


def test_no_request_of_busy_connections_is_lost_over_a_sigterm(servers):
    """HOST-03: those that send the next one as soon as they have an answer. (Who connects in the
    very moment in which the port is closed may be cut off; gunicorn's own workers lose a few.)
    """
    server = servers("express")
    told: list[str] = []
    threads = [
        threading.Thread(target=keep_asking, args=(server, bool(number % 2), told))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    server.wait_for(lambda: len(told) > 500)
    server.terminate()
    for thread in threads:
        thread.join(60)
    assert server.process.wait(20) == 0
    assert set(told) == {"answered", "refused"}


def keep_asking(server, anew: bool, told: list[str]) -> None:
    """Ask until nobody listens, and tell what became of each request."""
    headers = ["Connection: close"] if anew else []
    while True:
        try:
            client = Client(server)
        except OSError:
            told.append("refused")
            return
        with client:
            close = False
            while not close:
                try:
                    status, head, body = client.send(request("1,2,3,4\n", *headers)).answer()
                    close = b"connection: close" in head
                    told.append("answered" if status == 200 else f"{status}: {body!r}")
                except (OSError, AssertionError) as error:
                    told.append("refused" if anew else repr(error))
                    return


def resident(pid: int) -> int:
    """Bytes of memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def metrics(server) -> str:
    return server.call("GET", "/metrics").body.decode()


@pytest.mark.parametrize("door", ["express"])
def test_who_has_said_all_is_answered_however_many_have_come_with_them(servers, door):
    """HOST-30: a connection whose other end has closed its half, while there is a crowd."""
    server = servers(door, BYOA_WORKERS="1")
    for _ in range(50):
        assert server.invoke().status == 200
    clients = [Client(server) for _ in range(100)]
    for client in clients:
        assert client.send(request()).answer()[0] == 200
    (worker,) = server.workers()
    os.kill(worker, signal.SIGSTOP)
    for client in clients:
        client.send(request()).socket.shutdown(socket.SHUT_WR)
    os.kill(worker, signal.SIGCONT)
    for client in clients:
        with client:
            assert client.answer()[0] == 200
