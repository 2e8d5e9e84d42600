"""Answers that are sent while they are made (STRM-01, CHK-12), through every door."""

from __future__ import annotations

import http.client
import json
import socket
import time

import pytest

# The first column of the record says what is yielded; `gate` is a file that lets it go on.
YIELDING = '''
import os, pathlib, time
from byoa.algorithms import Algorithm

class Yielding(Algorithm):
    def train(self, run): ...

    def load(self, model_dir, device):
        return model_dir

    def predict(self, model, records):
        what = int(records[0, 0])
        places = pathlib.Path(os.environ["PLACES"])
        if what == 1:
            for number in range(3):
                yield {"number": number}
        elif what == 2:
            yield "first\\n"
            while not (places / "gate").exists():
                time.sleep(0.01)
            yield "last\\n"
        elif what == 3:
            yield "first\\n"
            raise ValueError("the third law")
        elif what == 4:
            raise ValueError("before all")
        elif what == 5:
            try:
                while True:
                    yield b"x" * 65536
            finally:
                (places / "closed").write_text("closed")
        elif what == 6:
            yield from ["line one\\nline two", {"score": 0.5}, 7]
        elif what == 7:
            for number in range(200):
                yield number
                time.sleep(0.005)
            while records[0, 1] and not (places / "gate").exists():
                time.sleep(0.005)
                yield -1
        elif what == 8:
            return
        elif what == 9:
            yield 1
            raise SystemExit(3)
        elif what == 10:
            yield "first"
            while True:
                time.sleep(0.01)
                yield "."
        elif what == 11:
            raise SystemExit(3)
'''


@pytest.fixture
def places(tmp_path):
    (tmp_path / "places").mkdir()
    return tmp_path / "places"


@pytest.fixture
def streaming(door, servers, places):
    def prepare(model):
        (model / "code").mkdir()
        (model / "code" / "yielding.py").write_text(YIELDING)
        (model / "byoa.json").write_text(json.dumps({
            "byoa": 1, "algorithm": "yielding:Yielding", "input": {"sample": [[1.0, 0.0]]},
        }))

    def start(**variables):
        return servers(door, prepare=prepare, PLACES=str(places), **variables)

    return start


def opened(server, what, accept=None, timeout=30):
    what = what if isinstance(what, str) else f"{what},0"
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout)
    headers = {"Content-Type": "text/csv", **({"Accept": accept} if accept else {})}
    connection.request("POST", "/invocations", f"{what}\n", headers)
    return connection, connection.getresponse()


def test_what_is_yielded_is_an_answer_in_chunks(streaming):
    """STRM-01, CHK-12: the first bytes come before the last are made."""
    server = streaming()
    connection, answer = opened(server, 2)
    assert answer.status == 200
    assert answer.getheader("Transfer-Encoding") == "chunked"
    assert answer.getheader("Content-Type") == "text/plain; charset=utf-8"
    assert answer.read1() == b"first\n"
    (server.base.parent.parent / "places" / "gate").touch()
    assert answer.read() == b"last\n"
    # The connection is whole, and takes the next request.
    connection.request("POST", "/invocations", "1,0\n", {"Content-Type": "text/csv"})
    assert len(connection.getresponse().read().splitlines()) == 3
    connection.close()


@pytest.mark.parametrize(("accept", "content_type", "body"), [
    (None, "application/jsonlines", b'{"number":0}\n{"number":1}\n{"number":2}\n'),
    ("application/json", "application/json", b'[{"number":0},{"number":1},{"number":2}]'),
    ("text/event-stream", "text/event-stream; charset=utf-8",
     b'data: {"number":0}\n\ndata: {"number":1}\n\ndata: {"number":2}\n\n'),
])
def test_the_pieces_are_written_as_accept_asks(streaming, accept, content_type, body):
    answer = streaming().invoke("1,0\n", accept=accept)
    assert (answer.status, answer.body) == (200, body)
    assert answer.headers["content-type"] == content_type


def test_every_kind_of_piece_and_of_end(streaming):
    """STRM-06: an error before the first piece is an ordinary one."""
    server = streaming()
    events = server.invoke("6,0\n", accept="text/event-stream").body
    assert events == b'data: line one\ndata: line two\n\ndata: {"score":0.5}\n\ndata: 7\n\n'
    assert server.invoke("8,0\n", accept="application/json").body == b"[]"
    assert server.invoke("8,0\n").body == b""
    failed = server.invoke("4,0\n")
    assert failed.status == 500
    assert failed.json["message"] == "ValueError: before all"
    assert "yielding.py:" in failed.json["where"]
    ended = server.invoke("11,0\n")
    assert (ended.status, ended.json["code"]) == (500, "PREDICT_ENDED")
    refused = server.invoke("1,0\n", accept="image/png")
    assert refused.status == 406
    assert "text/event-stream" in refused.json["expected"]
    unreadable = server.invoke("a,b\n")
    assert unreadable.status == 400
    assert server.ping() == 200


@pytest.mark.parametrize("what", [3, 9])
def test_a_stream_that_breaks_off_has_no_end(streaming, what):
    """STRM-06: so that the caller's side can tell, and the server goes on."""
    server = streaming()
    connection, answer = opened(server, what)
    assert answer.status == 200
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        answer.read()
    connection.close()
    server.wait_for(lambda: "the stream broke off" in server.log)
    assert server.invoke("1,0\n").status == 200


def test_a_stream_ends_where_its_client_goes_away(streaming, places):
    server = streaming()
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(
            b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
            b"Content-Length: 4\r\n\r\n5,0\n"
        )
        assert b"200 OK" in client.recv(4096)
        # It reads no further, so that the model is stopped, and others are answered.
        assert server.invoke("1,0\n").status == 200
    server.wait_for((places / "closed").exists)


def test_streams_of_one_model_take_turns(streaming, places):
    server = streaming()
    connection, long = opened(server, "7,1")
    for _ in range(3):
        assert server.invoke("1,0\n").status == 200
    (places / "gate").touch()
    assert len(long.read().splitlines()) >= 200
    connection.close()


def test_a_stream_is_cut_at_its_limit(streaming):
    """HOST-31"""
    server = streaming(BYOA_STREAM_SECONDS="1")
    connection, answer = opened(server, 10)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        answer.read()
    connection.close()
    server.wait_for(lambda: "STREAM_TIMEOUT" in server.log)
    assert server.invoke("1,0\n").status == 200


def test_a_stream_that_is_being_sent_outlives_sigterm(streaming):
    """HOST-03"""
    server = streaming()
    connection, answer = opened(server, 7, accept="application/json")
    first = answer.read1()
    server.terminate()
    assert len(json.loads(first + answer.read())) == 200
    connection.close()
    assert server.process.wait(30) == 0


def test_more_streams_than_the_limit_are_refused(streaming):
    """HOST-36"""
    server = streaming(BYOA_QUEUE_LIMIT="2")
    held = [opened(server, 10) for _ in range(2)]
    refused = server.invoke("1,0\n")
    assert (refused.status, refused.json["code"]) == (503, "STREAMS_FULL")
    assert refused.headers["retry-after"] == "1"
    for connection, _ in held:
        connection.close()
    end = time.monotonic() + 30
    while server.invoke("1,0\n").status != 200:
        assert time.monotonic() < end
