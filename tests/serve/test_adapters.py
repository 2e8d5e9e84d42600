"""LoRA adapters of an inference script through a spawned server (SESS-04)."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.serve.talk import closed, hear, talk

SCRIPT = '''
import os
import threading
from pathlib import Path

def model_fn(model_dir):
    return {"adapters": {}}

def load_adapter(model, name, path):
    text = Path(path, "weights.txt").read_text()
    if text == "broken":
        raise ValueError("rank 0 is no rank")
    model["adapters"][name] = text
    assert threading.current_thread().name == "model"
    note(f"load {name} {os.getpid()}")

def unload_adapter(model, name):
    del model["adapters"][name]
    note(f"unload {name} {os.getpid()}")

def note(text):
    with open(os.environ["NOTES"], "a") as file:
        file.write(text + "\\n")

def converse_fn(messages, model, context):
    for message in messages:
        yield f"{context.adapter}: {model['adapters'].get(context.adapter)} {message}"

def predict_fn(data, model, context):
    return [context.adapter, context.adapter_alias, model["adapters"].get(context.adapter),
            sorted(model["adapters"]), os.getpid()]
'''


class Adapting:
    """A server whose script takes adapters, and what is done with it."""

    def __init__(self, servers: Any, door: str, base: Path, workers: int = 1) -> None:
        self.notes = base / "notes"

        def prepare(model: Path) -> None:
            (model / "byoa.json").unlink()
            (model / "code").mkdir()
            (model / "code" / "inference.py").write_text(SCRIPT)
            for name in ("french", "german", "broken"):
                place = model.parent / "adapters" / name
                place.mkdir(parents=True)
                (place / "weights.txt").write_text(name)

        self.server = servers(
            door, prepare=prepare, NOTES=str(self.notes), BYOA_WORKERS=str(workers)
        )

    def post(self, name: Any, src: str = "french", **members: Any) -> Any:
        document = {"name": name, "src": f"/opt/ml/adapters/{src}", **members}
        return self.server.call("POST", "/adapters", json.dumps(document))

    def delete(self, name: str) -> Any:
        return self.server.call("DELETE", f"/adapters/{name}")

    def ask(self, name: str | None = None, **headers: str) -> Any:
        if name is not None:
            headers["X_Amzn_SageMaker_Adapter_Identifier"] = name
        return self.server.invoke("1", **headers)

    def noted(self, what: str) -> int:
        return self.notes.read_text().count(what) if self.notes.exists() else 0


@pytest.fixture
def adapting(door: str, servers: Any, tmp_path: Path) -> Adapting:
    return Adapting(servers, door, tmp_path)


def test_an_adapter_is_loaded_asked_for_and_unloaded(adapting):
    """SESS-04."""
    assert adapting.ask().json[:4] == [None, None, None, []]
    reply = adapting.post("fr", preload=True, pin=False)
    assert (reply.status, reply.json) == (200, {"status": "Adapter fr registered"})
    assert adapting.noted("load fr") == 1
    found = adapting.ask("fr", X_Amzn_SageMaker_Adapter_Alias="Français".encode().decode("latin-1"))
    assert found.json[0] == "fr" and found.json[2:4] == ["french", ["fr"]]
    assert adapting.ask().json[:4] == [None, None, None, ["fr"]]
    assert adapting.post("de", "german").status == 200
    assert adapting.ask("de").json[2:4] == ["german", ["de", "fr"]]
    reply = adapting.delete("fr")
    assert (reply.status, reply.json) == (200, {"status": "Adapter fr unregistered"})
    assert adapting.ask("de").json[3] == ["de"]
    lost = adapting.ask("fr")
    assert (lost.status, lost.json["code"]) == (404, "ADAPTER_NOT_LOADED")


def test_a_name_in_a_path_is_decoded_once(adapting):
    """SESS-04."""
    for name in ("a%41", "aA"):
        assert adapting.post(name).status == 200
    reply = adapting.delete("a%2541")
    assert (reply.status, reply.json) == (200, {"status": "Adapter a%41 unregistered"})
    assert adapting.ask("aA").json[3] == ["aA"]


def test_a_name_may_have_any_printable_characters_to_its_limit(adapting):
    # SESS-04
    for name in ("%" * 200, "..", "a b, c"):
        assert adapting.post(name).status == 200
        assert adapting.ask(name).json[:3] == [name, None, "french"]
    assert adapting.delete("%25" * 200).status == 200
    assert adapting.ask("%" * 200).status == 404
    refused = adapting.ask("é".encode().decode("latin-1") * 100)
    assert (refused.status, refused.json["code"]) == (400, "ADAPTER_REQUEST_INVALID")


def test_all_workers_have_the_adapters_of_the_server(servers, tmp_path):
    """SESS-04: whichever worker was told."""
    adapting = Adapting(servers, "express", tmp_path, workers=3)
    server = adapting.server
    assert adapting.post("fr").status == 200

    def answered() -> dict[int, Any]:
        found: dict[int, Any] = {}
        server.wait_for(lambda: found.update(
            {each[4]: each for each in [adapting.ask("fr").json]}
        ) or len(found) == 3, 60)
        return found

    assert all(each[2] == "french" for each in answered().values())
    assert adapting.noted("load fr") == 3
    assert adapting.delete("fr").status == 200
    assert adapting.post("fr", "german").status == 200  # another one of the same name
    assert all(each[2] == "german" for each in answered().values())
    # A worker that is started later has them too.
    os.kill(next(iter(answered())), signal.SIGKILL)
    assert all(each[2] == "german" for each in answered().values())


def test_an_adapter_that_is_not_to_be_preloaded_is_loaded_when_it_is_asked_for(adapting):
    # SESS-04
    assert adapting.post("fr", preload=False).status == 200
    assert adapting.noted("load fr") == 0
    assert adapting.ask("fr").json[2] == "french"
    assert adapting.noted("load fr") == 1


def test_an_adapter_that_does_not_load_is_not_there(adapting):
    # SESS-04
    reply = adapting.post("bad", "broken")
    assert reply.status == 500
    assert "rank 0 is no rank" in reply.json["message"]
    assert adapting.ask("bad").status == 404
    assert adapting.ask().status == 200


def test_a_name_is_taken_once(adapting):
    # SESS-04
    assert adapting.post("fr").status == 200
    reply = adapting.post("fr", "german")
    assert (reply.status, reply.json["code"]) == (409, "ADAPTER_EXISTS")
    assert adapting.ask("fr").json[2] == "french"
    assert adapting.delete("de").status == 404


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"name": "fr"}, "name and src"),
        ({"name": 1, "src": "/opt/ml/x"}, "name and src"),
        ({"name": "", "src": "/opt/ml/x"}, "cannot name"),
        ({"name": "a/b", "src": "/opt/ml/x"}, "cannot name"),
        ({"name": "n" * 201, "src": "/opt/ml/x"}, "cannot name"),
        ({"name": "é", "src": "/opt/ml/x"}, "cannot name"),  # no header can ask for it
        ({"name": "\ud800", "src": "/opt/ml/x"}, "cannot name"),
        ({"name": "a\n", "src": "/opt/ml/x"}, "cannot name"),
        ({"name": " a", "src": "/opt/ml/x"}, "cannot name"),
        ({"name": "fr", "src": "/opt/ml/" + "x" * 5000}, "is not there"),
        ({"name": "fr", "src": "/opt/ml/\ud800\0"}, "is not there"),
        ({"name": "fr", "src": "/etc"}, "not below /opt/ml"),
        ({"name": "fr", "src": "/opt/ml/../x"}, "not below /opt/ml"),
        ({"name": "fr", "src": "/opt/ml/x"}, "is not there"),
        ({"name": "fr", "src": "/opt/ml/x", "pin": "yes"}, "neither true nor false"),
        ({"name": "fr", "src": "/opt/ml/x", "rank": 8}, "'rank' is not known"),
        ([], "no JSON object"),
    ],
)
def test_a_request_that_names_no_adapter_is_refused(servers, tmp_path, document, said):
    # SESS-04
    server = Adapting(servers, "express", tmp_path).server
    reply = server.call("POST", "/adapters", json.dumps(document))
    assert (reply.status, reply.json["code"]) == (400, "ADAPTER_REQUEST_INVALID")
    assert said in reply.json["message"]


@pytest.fixture(params=["express", "express-gunicorn"])
def talking(request: pytest.FixtureRequest, servers: Any, tmp_path: Path) -> Adapting:
    return Adapting(servers, request.param, tmp_path)


def with_adapter(name: str) -> dict[str, Any]:
    return {"additional_headers": {"X-Amzn-SageMaker-Adapter-Identifier": name}}


def test_a_conversation_finds_its_adapter_loaded(talking):
    """SESS-04, BIDI-02: loaded on the model's thread before its first step."""
    assert talking.post("fr", preload=False).status == 200
    assert talking.noted("load fr") == 0
    with talk(talking.server, **with_adapter("fr")) as client, talk(talking.server) as plain:
        client.send("bonjour")
        plain.send("hello")
        assert hear(client) == ["fr: french bonjour"]
        assert hear(plain) == ["None: None hello"]
    assert talking.noted("load fr") == 1


@pytest.mark.parametrize(("name", "status", "code"), [
    ("de", 404, "ADAPTER_NOT_LOADED"), ("a/b", 400, "ADAPTER_REQUEST_INVALID"),
])
def test_a_handshake_that_names_no_adapter_is_refused(talking, name, status, code):
    """SESS-04, BIDI-01."""
    with pytest.raises(InvalidStatus) as caught, talk(talking.server, **with_adapter(name)):
        pass
    response = caught.value.response
    assert (response.status_code, json.loads(response.body)["code"]) == (status, code)


def test_a_conversation_whose_adapter_does_not_load_ends_with_the_reason(talking):
    # SESS-04
    assert talking.post("bad", "broken", preload=False).status == 200
    with talk(talking.server, **with_adapter("bad")) as client:
        assert closed(client) == (1011, "CONVERSE_FAILED: ValueError: rank 0 is no rank")
    with talk(talking.server) as client:
        client.send("on")
        assert hear(client) == ["None: None on"]


def test_other_methods_are_refused_by_name(adapting):
    """HOST-14."""
    wrong = (("DELETE", "/adapters", "POST"), ("POST", "/adapters/x", "DELETE"))
    for method, path, allowed in wrong:
        reply = adapting.server.call(method, path, "")
        assert (reply.status, reply.headers["allow"]) == (405, allowed)


def test_a_model_without_the_functions_says_what_to_define(server):
    """SESS-04."""
    for reply in (
        server.call("POST", "/adapters", '{"name": "fr", "src": "/opt/ml/x"}'),
        server.call("DELETE", "/adapters/fr"),
        server.invoke(X_Amzn_SageMaker_Adapter_Identifier="fr"),
    ):
        assert (reply.status, reply.json["code"]) == (400, "ADAPTERS_UNSUPPORTED")
        assert "load_adapter(model, name, path)" in reply.json["expected"]


def test_one_of_the_two_functions_is_not_enough(servers):
    def prepare(model: Path) -> None:
        (model / "byoa.json").unlink()
        (model / "code").mkdir()
        (model / "code" / "inference.py").write_text(
            "def model_fn(path): return 1\ndef load_adapter(model, name, path): pass\n"
        )

    server = servers(prepare=prepare, wait=False, BYOA_LOAD_FAILURE_SECONDS="0")
    assert server.process.wait(60) != 0
    assert "load_adapter is defined without the other" in server.log
