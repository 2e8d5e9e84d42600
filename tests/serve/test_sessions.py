"""Stateful sessions through a spawned server (SESS-01 … SESS-03)."""

from __future__ import annotations

import json
import re
import time
from datetime import datetime
from pathlib import Path

import pytest

from byoa.serve.sessions import Session

COUNTING = '''
def model_fn(model_dir):
    return None

def predict_fn(data, model, context):
    if context.session is None:
        return "none"
    count = context.session.get("count", 0) + 1
    context.session.put("count", count)
    return count
'''


@pytest.fixture
def counting(door, servers, tmp_path):
    def prepare(model):
        (model / "byoa.json").unlink()
        (model / "code").mkdir()
        (model / "code" / "inference.py").write_text(COUNTING)

    def start(**variables):
        return servers(
            door, prepare=prepare, SAGEMAKER_ENABLE_STATEFUL_SESSIONS="true",
            SAGEMAKER_SESSIONS_PATH=str(tmp_path / "sessions"), BYOA_WORKERS="2", **variables,
        )

    return start


def opened(server):
    answer = server.invoke("1", X_Amzn_SageMaker_Session_Id="NEW_SESSION")
    assert answer.status == 200, answer.body
    told = answer.headers["x-amzn-sagemaker-new-session-id"]
    match = re.fullmatch(r"([0-9a-f-]{36}); Expires=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", told)
    assert match is not None, told
    return match[1]


def test_a_session_is_opened_used_and_closed(counting, tmp_path):
    """SESS-01, SESS-02: whichever worker answers."""
    server = counting()
    first, second = opened(server), opened(server)
    assert first != second
    counts = [server.invoke("1", X_Amzn_SageMaker_Session_Id=first).json for _ in range(6)]
    assert counts == [1, 2, 3, 4, 5, 6]
    assert server.invoke("1", X_Amzn_SageMaker_Session_Id=second).json == 1
    assert server.invoke("1").json == "none"
    closed = server.invoke('{"requestType": "CLOSE"}', "application/json",
                           X_Amzn_SageMaker_Session_Id=first)
    assert closed.status == 200
    assert closed.headers["x-amzn-sagemaker-closed-session-id"] == first
    assert [path.name for path in (tmp_path / "sessions").iterdir()] == [second]
    lost = server.invoke("1", X_Amzn_SageMaker_Session_Id=first)
    assert (lost.status, lost.json["code"]) == (424, "SESSION_LOST")
    asked = server.invoke('{"requestType":"NEW_SESSION"}', "application/json")
    assert "x-amzn-sagemaker-new-session-id" in asked.headers


def test_what_is_no_session_is_refused(counting):
    """SESS-03: malformed is 400, a session that failed 424."""
    server = counting(SAGEMAKER_SESSIONS_EXPIRATION="1")
    for wrong in ("../../etc", "x" * 50):
        refused = server.invoke("1", X_Amzn_SageMaker_Session_Id=wrong)
        assert (refused.status, refused.json["code"]) == (400, "SESSION_INVALID")
    missing = server.invoke('{"requestType": "CLOSE"}', "application/json")
    assert (missing.status, missing.json["code"]) == (400, "SESSION_MISSING")
    short = opened(server)
    server.wait_for(
        lambda: server.invoke("1", X_Amzn_SageMaker_Session_Id=short).status == 424
    )


def test_the_server_s_own_place_for_sessions_ends_with_it(servers):
    """HOST-03: what callers have left is not left in shared memory."""
    def prepare(model):
        (model / "byoa.json").unlink()
        (model / "code").mkdir()
        (model / "code" / "inference.py").write_text(
            "def model_fn(model_dir):\n    return None\n\n\n"
            "def predict_fn(data, model, context):\n"
            "    context.session.put('key', 1)\n    return str(context.session.path)\n"
        )

    server = servers(prepare=prepare, SAGEMAKER_ENABLE_STATEFUL_SESSIONS="true")
    place = Path(server.invoke("1", X_Amzn_SageMaker_Session_Id=opened(server)).json)
    assert (place / "key").read_text() == "1"
    assert place.parent.stat().st_mode & 0o077 == 0
    server.terminate()
    assert server.process.wait(30) == 0
    assert not place.parent.exists()


def test_a_place_for_sessions_that_cannot_be_made_ends_the_start(servers, tmp_path):
    (tmp_path / "file").touch()
    server = servers(wait=False, SAGEMAKER_ENABLE_STATEFUL_SESSIONS="true",
                     SAGEMAKER_SESSIONS_PATH=str(tmp_path / "file" / "sessions"))
    assert server.process.wait(30) == 1
    assert "SAGEMAKER_SESSIONS_PATH=" in server.log and "[SETTING_INVALID]" in server.log


def test_a_value_that_is_no_json_leaves_nothing(tmp_path):
    session = Session("id", tmp_path, 0.0)
    with pytest.raises(TypeError):
        session.put("key", object())
    assert list(tmp_path.iterdir()) == []


def test_without_its_variable_a_session_is_an_ordinary_request(servers, door):
    """SESS-03: SAGEMAKER_ENABLE_STATEFUL_SESSIONS is false."""
    def prepare(model):
        (model / "byoa.json").unlink()
        (model / "code").mkdir()
        (model / "code" / "inference.py").write_text(COUNTING)

    server = servers(door, prepare=prepare)
    answer = server.invoke("1", X_Amzn_SageMaker_Session_Id="NEW_SESSION")
    assert (answer.status, answer.json) == (200, "none")
    assert "x-amzn-sagemaker-new-session-id" not in answer.headers


def test_a_session_lives_for_twenty_minutes(counting):
    """SESS-03: SAGEMAKER_SESSIONS_EXPIRATION is 1200 s."""
    before = time.time()
    answer = counting().invoke("1", X_Amzn_SageMaker_Session_Id="NEW_SESSION")
    told = answer.headers["x-amzn-sagemaker-new-session-id"].partition("; Expires=")[2]
    until = datetime.fromisoformat(told.replace("Z", "+00:00")).timestamp()
    assert before - 1 <= until - 1200 <= time.time()


def test_sessions_are_for_scripts(servers):
    server = servers(wait=False, SAGEMAKER_ENABLE_STATEFUL_SESSIONS="true")
    server.wait_for(lambda: server.ping() == 503
                    and json.loads(server.call("GET", "/ping").body).get("code")
                    == "SESSIONS_UNSUPPORTED")
