"""A client and a model that talk over a WebSocket, through both workers of the express lane
(BIDI-01 … BIDI-06)."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from websockets.exceptions import ConnectionClosed

from tests.serve.exposition import Exposition
from tests.serve.talk import PATH, SECONDS, algorithm, closed, hear, script, talk

WORKERS = ["express", "express-gunicorn"]


@pytest.fixture(params=WORKERS)
def worker(request):
    return request.param


@pytest.fixture
def places(tmp_path):
    (tmp_path / "places").mkdir()
    return tmp_path / "places"


@pytest.fixture
def talking(worker, servers, places):
    def start(**variables):
        given = {"BYOA_ACCESS_LOG": "1", "PLACES": str(places), **variables}
        return servers(worker, prepare=algorithm(), **given)

    return start


def lines(server) -> list[dict]:
    found = [json.loads(each) for each in server.log.splitlines() if each.startswith('{"time"')]
    return [each for each in found if each["path"] == PATH]


def line(server, count: int = 1) -> dict:
    """The last of so many lines of conversations, once they are there."""
    server.wait_for(lambda: len(lines(server)) >= count, SECONDS)
    return lines(server)[count - 1]


def test_a_message_is_heard_whole_and_answered_by_one_frame_of_its_kind(talking):
    """BIDI-01, BIDI-03: text is text, binary is binary, and what is said is a frame each; a message
    in parts, FIN 0, comes as one. BIDI-04: a ping is answered meanwhile."""
    with talk(talking()) as client:
        assert client.response.headers.get("Sec-WebSocket-Extensions") is None  # nor encoded
        client.send("grüße")
        client.send(b"\x00\xff")
        assert hear(client, 2) == ["grüße", b"\x00\xff"]
        client.send(["in ", "three ", "parts"])
        client.send([b"and", b"", b"bytes"])
        assert hear(client, 2) == ["in three parts", b"andbytes"]
        client.send("count 3")
        assert hear(client, 3) == ["0", "1", "2"]
        client.send("nothing")
        assert hear(client, 2) == ["", b""]
        assert client.ping(b"are you there").wait(SECONDS)
        client.send(b"m" * 5_000_000)
        assert hear(client) == [b"m" * 5_000_000]


def test_what_is_said_is_a_frame_that_is_whole(talking):
    """BIDI-03: FIN 1, no extension's bits, nothing joined; as the bytes are on the wire."""
    with bare(talking(), "grüße".encode()) as client:
        stream = client.makefile("rb")
        assert stream.read(9) == b"\x81\x07" + "grüße".encode()
        # Text in two parts with a ping between them (RFC 6455, 5.4), all in one packet.
        client.sendall(frame(0x01, b"count") + frame(0x89, b"hi") + frame(0x80, b" 3"))
        assert stream.read(4) == b"\x8a\x02hi"
        assert stream.read(9) == b"\x81\x010\x81\x011\x81\x012"
        client.sendall(frame(0x88, b"\x03\xe8"))
        assert stream.read() == b"\x88\x02\x03\xe8"


def test_the_request_s_headers_and_query_come_through(talking):
    """BIDI-02: X-Amzn-SageMaker-Model-Query-String is appended to the path; HOST-34: headers have
    their names."""
    headers = {"X-Amzn-SageMaker-Custom-Attributes": "trace=7"}
    with talk(talking(), "?greet=you+all&a=b", additional_headers=headers) as client:
        assert hear(client) == ["hello you all"]
        client.send("header x-amzn-sagemaker-custom-attributes")
        client.send("header x-amzn-sagemaker-target-variant")
        assert hear(client, 2) == ["trace=7", "none"]


def test_a_script_s_converse_fn_is_called_with_its_model_and_context(worker, servers):
    """BIDI-01, ITK-01"""
    server = servers(worker, prepare=script())
    with talk(server, additional_headers={"X-Amzn-SageMaker-Custom-Attributes": "c"}) as client:
        client.send("one")
        assert hear(client, 2) == ["c", "> one"]


def test_the_model_speaks_while_it_listens(talking):
    with talk(talking()) as client:
        client.send("until-told")
        assert hear(client, 3) == ["."] * 3
        client.send("stop")
        while (said := hear(client)[0]) == ".":
            pass
        assert said == "stop after True"


def test_two_conversations_and_requests_never_call_the_model_at_the_same_time(talking, places):
    """TRAP-08: nor does either keep the others waiting; /ping is answered meanwhile."""
    server = talking()

    def long_talk(_) -> int:
        with talk(server) as client:
            client.send("count 300")
            return len(hear(client, 300))

    with ThreadPoolExecutor(4) as pool:
        talks = [pool.submit(long_talk, each) for each in range(2)]
        # One that only listens keeps nobody waiting.
        with talk(server) as listener:
            requests = [pool.submit(server.invoke, "1\n") for _ in range(40)]
            assert {each.result(SECONDS).status for each in requests} == {200}
            assert server.ping() == 200
            listener.send("still here")
            assert hear(listener) == ["still here"]
        assert [each.result(SECONDS) for each in talks] == [300, 300]
    assert not (places / "twice").exists()


def test_a_conversation_has_a_thread_of_its_own(talking):
    server = talking()
    with talk(server) as client:
        client.send("thread")
        assert hear(client) == ["conversation"]
    assert b"conversation" not in server.invoke("1\n").body


def test_the_model_ends_a_conversation_where_it_returns(talking, places):
    server = talking()
    with talk(server) as client:
        client.send("bye")
        assert closed(client) == (1000, "")
    found = line(server)
    assert (found["status"], found["close_code"], found["messages_in"]) == (101, 1000, 1)
    assert (places / "closed").exists()


@pytest.mark.parametrize(("said", "code", "reason", "status"), [
    ("fail", 1011, "CONVERSE_FAILED: ValueError: the third law", 500),
    ("mute", 1011, "CONVERSE_FAILED: Mute: (its message cannot be printed: TypeError)", 500),
    ("exit", 1011, "PREDICT_ENDED: converse raised SystemExit(3)", 500),
    ("object", 1011, "PREDICTION_NOT_ENCODABLE: converse yielded dict", 500),
    ("data", 1007, "TEMPERATURE_LOW: below absolute zero", 400),
])
def test_an_error_closes_the_conversation_with_its_cause(talking, said, code, reason, status):
    """BIDI-05: code and reason are what the platform makes a ModelStreamError of."""
    server = talking()
    with talk(server) as client:
        client.send("before")
        client.send(said)
        assert hear(client) == ["before"]  # what was said before it is not lost
        assert closed(client) == (code, reason)
    found = line(server)
    assert (found["status"], found["close_code"]) == (status, code)
    assert f"request {found['request_id']}: the conversation broke off" in server.log
    with talk(server) as client:  # the server goes on
        client.send("after")
        assert hear(client) == ["after"]
    assert server.invoke("1\n").status == 200


def test_a_long_reason_is_cut_to_what_a_close_frame_holds(talking):
    """BIDI-05; RFC 6455, 5.5"""
    server = talking()
    with talk(server) as client:
        client.send("fail long")
        code, reason = closed(client)
    assert code == 1011 and len(reason.encode()) <= 123
    assert reason.startswith("CONVERSE_FAILED: ValueError: the third law") and reason.endswith("…")
    assert "talker.py" in server.log  # the rest is in the log


@pytest.mark.parametrize(("code", "reason"), [
    ("raise ValueError('before all')", "CONVERSE_FAILED: ValueError: before all"),
    ("return None", "CONVERSE_INVALID: the author's function returned NoneType"),
    ("context.set_response_header(0, 'X-Own', 'h')",
     "CONTEXT_NO_ANSWER: a conversation has no status, type or headers of an answer"),
    ("return 'text'", "CONVERSE_INVALID: the author's function returned str"),
])
def test_an_error_before_the_first_message(worker, servers, code, reason):
    """BIDI-05"""
    server = servers(worker, prepare=script(
        f"def model_fn(model_dir): ...\ndef converse_fn(messages, model, context):\n    {code}\n"
    ))
    with talk(server) as client:
        assert closed(client) == (1011, reason)


def test_a_generator_is_closed_where_its_client_leaves_in_the_middle(talking, places):
    server = talking()
    with talk(server) as client:
        client.send("for-ever")
        assert hear(client) == [b"x" * 65536]
        client.socket.shutdown(socket.SHUT_RDWR)  # without a close frame
    server.wait_for((places / "closed").exists, SECONDS)
    assert not (places / "ended").exists()
    found = line(server)
    assert found["status"] == 499 and "close_code" not in found
    assert server.invoke("1\n").status == 200


def test_messages_end_where_the_client_closes(talking, places):
    server = talking()
    with talk(server) as client:
        client.send("hello")
        assert hear(client) == ["hello"]
    server.wait_for((places / "closed").exists, SECONDS)
    assert (places / "ended").read_text() == "True"
    found = line(server)
    assert (found["status"], found["close_code"]) == (101, 1000)
    assert (found["messages_in"], found["messages_out"]) == (1, 1)
    assert (found["bytes_in"], found["bytes_out"]) == (5, 5)


def test_a_model_that_only_looks_for_messages_ends_with_its_client(talking, places):
    server = talking()
    with talk(server) as client:
        client.send("only-look")
        client.send("something")
        assert server.invoke("1\n").status == 200
    server.wait_for((places / "closed").exists, SECONDS)
    assert line(server)["status"] == 101
    assert "converse failed" not in server.log and "broke off" not in server.log


def test_what_was_said_before_the_client_closes_is_heard(talking, places):
    server = talking()
    with bare(server, b"note first") as client:
        # The last words and the close frame come in one packet.
        words = [frame(0x81, b"note %d" % number) for number in range(20)]
        client.sendall(b"".join(words) + frame(0x88, b"\x03\xe8"))
        assert client.recv(4) == b"\x88\x02\x03\xe8"
    server.wait_for((places / "ended").exists, SECONDS)
    assert {f"{number}" for number in range(20)} < {each.name for each in places.iterdir()}
    assert line(server)["messages_in"] == 21


def test_a_slow_reader_stops_his_own_conversation_only(talking, places):
    """What the model says to him waits in a limited number; then his generator does."""
    server = talking()
    with talk(server, max_queue=1, close_timeout=1) as slow:
        slow.send("for-ever")
        assert hear(slow) == [b"x" * 65536]
        with talk(server) as other:
            other.send("count 100")
            assert len(hear(other, 100)) == 100
        assert server.invoke("1\n").status == 200
        assert len(hear(slow, 100)) == 100  # more than was kept for him: it goes on
    server.wait_for((places / "closed").exists, SECONDS)


@contextlib.contextmanager
def bare(server, said: bytes, receive_bytes: int = 1 << 16):
    """A socket on which a conversation is open, and one short message is sent; nothing is read
    behind the handshake."""
    with contextlib.closing(socket.socket()) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        client.settimeout(SECONDS)
        client.connect(("127.0.0.1", server.port))
        client.sendall(
            b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\n"
            b"Upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" % PATH.encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head  # RFC 6455's own example
        client.sendall(frame(0x81, said))
        yield client


def frame(first: int, payload: bytes) -> bytes:
    """A short frame of a client's, masked by zeros."""
    return bytes((first, 0x80 | len(payload))) + bytes(4) + payload


def test_one_who_goes_without_a_close_frame_leaves_no_traceback(talking, places):
    server = talking()
    for _ in range(5):
        with bare(server, b"echo") as client:
            assert client.recv(6) == b"\x81\x04echo"
        server.wait_for((places / "closed").exists, SECONDS)
        (places / "closed").unlink()
        with bare(server, b"next") as client:  # what was left to do for the first one is done
            assert client.recv(6) == b"\x81\x04next"
            client.sendall(frame(0x88, b"\x03\xe8"))
            assert client.recv(4) == b"\x88\x02\x03\xe8"
        server.wait_for((places / "closed").exists, SECONDS)
        (places / "closed").unlink()
    line(server, 10)
    assert sorted(each["status"] for each in lines(server)) == [101] * 5 + [499] * 5
    assert "Traceback" not in server.log


def test_one_who_never_reads_is_cut_off(talking, places):
    server = talking(BYOA_READ_TIMEOUT="1")
    with bare(server, b"for-ever", 4096):
        server.wait_for((places / "closed").exists, SECONDS)
    assert line(server)["status"] == 499


def test_one_who_has_not_read_all_may_still_close(talking, places):
    server = talking()
    with bare(server, b"for-ever", 4096) as client:
        assert client.recv(1) == b"\x82"
        client.sendall(frame(0x88, b"\x03\xe8"))
        server.wait_for((places / "closed").exists, SECONDS)
        rest = b""
        while part := client.recv(65536):
            rest = rest[-4:] + part
        assert rest.endswith(b"\x88\x02\x03\xe8")
    assert line(server)["status"] == 101


def test_a_model_that_does_not_listen_is_not_flooded(talking, places):
    """Backpressure: the client's sending waits, and goes on where the model listens again."""
    server = talking()
    with talk(server) as client:
        client.send("deaf 60")
        assert hear(client) == ["deaf"]
        sent = []

        def flood() -> None:
            for number in range(60):
                client.send(b"%02d" % number + bytes(1_000_000))
                sent.append(number)

        thread = threading.Thread(target=flood)
        thread.start()
        server.wait_for(lambda: len(sent) >= 1, SECONDS)
        thread.join(1.0)
        assert len(sent) < 60  # 60 MB: sockets and buffers hold a few
        (places / "gate").touch()
        assert hear(client) == [b" ".join(b"%02d" % number for number in range(60))]
        thread.join(SECONDS)


@pytest.mark.parametrize("parts", [False, True])
def test_a_message_over_the_limit_is_refused_before_it_is_whole(talking, parts):
    """HOST-32: the limit of a request is that of a message, also of one that comes in parts."""
    server = talking(SAGEMAKER_MAX_PAYLOAD_IN_MB="1")
    with talk(server) as client:
        client.send(b"m" * (1 << 20))
        assert hear(client) == [b"m" * (1 << 20)]
        with contextlib.suppress(ConnectionClosed):
            client.send([b"m" * 600_000] * 2 if parts else b"m" * ((1 << 20) + 1))
        code, reason = closed(client)
    assert code == 1009 and "1048576 bytes" in reason
    found = line(server)
    assert (found["status"], found["close_code"]) == (413, 1009)


def test_text_that_is_no_utf_8_is_refused(talking):
    """RFC 6455, 8.1"""
    server = talking()
    with talk(server) as client:
        client.send(b"gr\xfc\xdfe", text=True)
        code, reason = closed(client)
    assert code == 1007 and "not UTF-8" in reason
    assert line(server)["status"] == 400


def test_a_conversation_is_cut_at_its_limit(talking, places):
    """BIDI-06"""
    server = talking(BYOA_CONVERSATION_SECONDS="1")
    with talk(server) as client:
        code, reason = closed(client)
    assert code == 1008
    assert reason == "CONVERSATION_TIMEOUT: not over within 1 s (BYOA_CONVERSATION_SECONDS)"
    assert line(server)["status"] == 504
    server.wait_for((places / "closed").exists, SECONDS)


def test_after_sigterm_no_message_is_heard_and_what_is_still_said_is_sent(talking, places):
    """HOST-03: then the server goes away, 1001."""
    server = talking()
    with talk(server) as client, talk(server) as idle:
        client.send("gate")
        assert hear(client) == ["waiting"]
        server.terminate()
        server.wait_for(lambda: server.ping() is None, SECONDS)
        (places / "gate").touch()
        assert hear(client, 2) == ["through", "the last word"]
        assert closed(client) == (1001, "the server stops")
        assert hear(idle) == ["the last word"]
        assert closed(idle) == (1001, "the server stops")
    assert server.process.wait(SECONDS) == 0
    assert [each["status"] for each in lines(server)] == [101, 101]


def test_a_model_that_goes_on_after_sigterm_is_cut_before_the_platform_kills_it(talking):
    """HOST-03"""
    server = talking(BYOA_GRACEFUL_TIMEOUT="3")
    with talk(server) as client:
        client.send("gate")
        assert hear(client) == ["waiting"]
        server.terminate()
        assert closed(client) == (1001, "the server stops")
    assert server.process.wait(SECONDS) == 0


def test_more_conversations_than_the_limit_are_refused(talking):
    """HOST-36"""
    from websockets.exceptions import InvalidStatus

    server = talking(BYOA_QUEUE_LIMIT="2")
    with talk(server), talk(server):
        with pytest.raises(InvalidStatus) as caught:
            talk(server)
        response = caught.value.response
        assert response.status_code == 503 and response.headers["Retry-After"] == "1"
        assert json.loads(response.body)["code"] == "STREAMS_FULL"

    def is_free() -> bool:
        try:
            with talk(server) as client:
                client.send("hello")
                return hear(client) == ["hello"]
        except InvalidStatus:
            return False

    server.wait_for(is_free, SECONDS)


def test_conversations_are_counted(talking):
    """CWM-05"""
    server = talking()

    def seen() -> Exposition:
        return Exposition(server.call("GET", "/metrics").body.decode())

    with talk(server) as client:
        client.send("hello")
        assert hear(client) == ["hello"]
        assert seen()("byoa_requests_in_flight") == 2  # it, and who asks
    server.wait_for(lambda: seen()("byoa_requests_total", route=PATH, status="101") == 1, SECONDS)
    assert seen()("byoa_requests_in_flight") == 1
    assert seen()("byoa_request_bytes_total") == 5


@pytest.mark.parametrize(("headers", "status"), [
    ({"Sec-WebSocket-Version": "13"}, 400),
    ({"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "short"}, 400),
    ({"Sec-WebSocket-Version": "8", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}, 400),
])
def test_a_handshake_that_is_none_is_refused(talking, headers, status):
    server = talking()
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", **headers}
    reply = server.call("GET", PATH, headers=headers)
    assert (reply.status, reply.json["code"]) == (status, "HANDSHAKE_INVALID")
    assert "Sec-WebSocket" in reply.json["message"]
    assert line(server)["status"] == status
