"""What a request to open a conversation is told where there is nobody to talk to (BIDI-01)."""

from __future__ import annotations

import contextlib
import http.client
import json

import pytest
from websockets.exceptions import InvalidStatus

from byoa.container.errors import AlgorithmError
from byoa.serve.loading import load
from tests.serve.conftest import DOORS
from tests.serve.talk import PATH, SECONDS, TALKER, algorithm, hear, script, talk

UPGRADE = {
    "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
QUIET_SCRIPT = "def model_fn(model_dir): ...\ndef predict_fn(data, model): return data\n"


def refused(server) -> tuple[int, dict]:
    """Status and body, as a WebSocket client is told."""
    with pytest.raises(InvalidStatus) as caught, talk(server):
        pass
    response = caught.value.response
    fields = json.loads(response.body)
    assert response.headers["X-Request-Id"] == fields["request_id"]
    return response.status_code, fields


def test_a_model_without_a_conversation_names_what_to_define(server):
    """BIDI-01"""
    status, fields = refused(server)
    if server.environment["BYOA_SERVER"] == "flask":
        assert (status, fields["code"]) == (501, "CONVERSE_DOOR")
        assert "BYOA_SERVER=express" in fields["expected"]
        return
    assert (status, fields["code"]) == (501, "CONVERSE_MISSING")
    assert fields["message"] == "scripted:Scripted does not define a conversation"
    assert "converse(self, model, messages)" in fields["expected"]


def test_a_script_without_a_conversation_names_what_to_define(servers):
    """BIDI-01"""
    status, fields = refused(servers(prepare=script(QUIET_SCRIPT)))
    assert (status, fields["code"]) == (501, "CONVERSE_MISSING")
    assert "converse_fn(messages, model)" in fields["expected"]


def test_the_flask_door_says_which_setting_holds_conversations(servers):
    status, fields = refused(servers("flask", prepare=algorithm(), PLACES="."))
    assert (status, fields["code"]) == (501, "CONVERSE_DOOR")
    assert "BYOA_SERVER=flask" in fields["remedy"]


@pytest.mark.parametrize("worker", ["express", "express-gunicorn"])
def test_a_handshake_that_names_an_adapter_of_a_model_without_some_is_refused(servers, worker):
    """SESS-04"""
    server = servers(worker, prepare=script())
    adapter = {"X-Amzn-SageMaker-Adapter-Identifier": "fr"}
    with pytest.raises(InvalidStatus) as caught, talk(server, additional_headers=adapter):
        pass
    response = caught.value.response
    assert response.status_code == 400
    assert json.loads(response.body)["code"] == "ADAPTERS_UNSUPPORTED"


@pytest.mark.parametrize("worker", ["express", "express-gunicorn"])
def test_a_model_that_is_loading_is_to_be_tried_again(servers, tmp_path, worker):
    server = servers(worker, wait=False, prepare=algorithm(), LOAD_WAITS="1", PLACES=str(tmp_path))
    server.wait_for(lambda: server.ping() == 503)
    status, fields = refused(server)
    assert (status, fields["code"]) == (503, "MODEL_LOADING")
    (tmp_path / "loaded").touch()
    server.ready(SECONDS)
    with talk(server) as client:
        client.send("now")
        assert hear(client) == ["now"]


@pytest.mark.parametrize("worker", ["express", "express-gunicorn"])
def test_a_server_with_many_models_says_so(servers, worker):
    status, fields = refused(servers(worker, SAGEMAKER_MULTI_MODEL="true"))
    assert (status, fields["code"]) == (501, "CONVERSE_MULTI_MODEL")


@pytest.mark.parametrize("worker", ["express", "express-gunicorn"])
def test_without_its_package_the_server_answers_and_names_it(servers, tmp_path, worker):
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'websockets':\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
    )
    authors = servers.base / "authors"
    server = servers(worker, prepare=algorithm(), PLACES=".", PYTHONPATH=f"{hidden}:{authors}")
    status, fields = refused(server)
    assert (status, fields["code"]) == (501, "CONVERSE_PACKAGE")
    assert fields["remedy"] == "pip install websockets"
    assert server.invoke("1\n").status == 200


@pytest.mark.parametrize("worker", ["express", "express-gunicorn"])
def test_a_request_that_is_no_upgrade_is_told_so(servers, worker):
    server = servers(worker, prepare=algorithm(), PLACES=".")
    for method, headers in (("GET", {}), ("POST", {}), ("POST", UPGRADE)):
        reply = server.call(method, PATH, headers=headers)
        assert (reply.status, reply.json["code"]) == (426, "UPGRADE_REQUIRED")
        assert reply.headers["upgrade"] == "websocket"


@pytest.mark.parametrize("worker", ["express", "express-gunicorn"])
def test_a_head_that_is_too_long_opens_nothing(servers, worker):
    server = servers(worker, prepare=algorithm(), PLACES=".")
    reply = server.call("GET", PATH, headers={**UPGRADE, "X-Long": "x" * 70_000})
    assert (reply.status, reply.json["code"]) == (431, "HEAD_TOO_LARGE")


@pytest.mark.parametrize("path", [f"{PATH}-metadata", "/invocations", "/ping"])
@pytest.mark.parametrize("door", ["express", "express-gunicorn"])
def test_no_other_path_becomes_a_websocket(shared_servers, door, path):
    reply = shared_servers(door).call("GET", path, headers=UPGRADE)
    assert reply.status == (200 if path == "/ping" else 405 if path == "/invocations" else 404)


@pytest.mark.parametrize("door", list(DOORS))
def test_a_connection_goes_on_behind_a_refusal(shared_servers, door):
    """HOST-11: the platform keeps its connections."""
    server = shared_servers(door)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SECONDS)
    with contextlib.closing(connection):
        connection.connect()
        connection.auto_open = 0  # a second one would not be noticed
        for _ in range(2):
            connection.request("GET", PATH, headers=UPGRADE)
            answer = connection.getresponse()
            assert (answer.status, answer.read()[:1]) == (501, b"{")
            connection.request("POST", "/invocations", "1,2,3,4\n", {"Content-Type": "text/csv"})
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b'{"predictions":[30.0]}')


@pytest.mark.parametrize(("converse", "message"), [
    ("async def converse(self, model, messages): yield 1", "converse is asynchronous"),
    ("async def converse(self, model, messages): ...", "converse is asynchronous"),
    ("def converse(self, messages): ...", "cannot be called so"),
    ("converse = 3", "converse is a int, no method"),
])
def test_a_conversation_that_cannot_be_called_fails_the_load(
    tmp_path, monkeypatch, converse, message
):
    """HOST-25: rather than the first client."""
    code = TALKER[: TALKER.index("    def converse")] + f"    {converse}\n"
    algorithm(code)(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    with pytest.raises(AlgorithmError) as caught:
        load(tmp_path, alone=False)
    assert caught.value.code == "CONVERSE_INVALID"
    assert message in caught.value.message


def test_a_script_s_conversation_that_cannot_be_called_fails_the_load(tmp_path):
    (tmp_path / "byoa.json").touch()
    script("async def converse_fn(messages, model): yield 1\n")(tmp_path)
    with pytest.raises(AlgorithmError, match="converse_fn is asynchronous"):
        load(tmp_path, alone=False)


def test_who_still_waits_for_an_answer_opens_no_conversation(servers):
    """Its answer would be a part of the conversation."""
    server = servers("express", prepare=algorithm(), PLACES=".", BYOA_INLINE="0")
    head = "".join(f"{name}: {value}\r\n" for name, value in UPGRADE.items())
    row = b"1,2,3,4\n" * 500
    with server.raw() as client:
        client.sendall(
            b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(row), row)
            + f"GET {PATH} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode()
        )
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert answer.status == 200 and b"model" in answer.read()
        client.settimeout(SECONDS)
        assert b"HTTP/1.1 101" not in client.recv(65536)
    assert server.ping() == 200
