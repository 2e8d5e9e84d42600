"""Many models in one server, through HTTP against a spawned server, each door."""

from __future__ import annotations

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

HASH = "a1b2c3"
URL = "/opt/ml/models/{}/model"
# The same module name in every model: each has to run its own.
ALGORITHM = '''
import os, time
import numpy as np
from byoa.algorithms import Algorithm, param

class Own(Algorithm):
    class Hyperparameters(Algorithm.Hyperparameters):
        ballast_mb: int = param(0, doc="memory that the model takes")
        load_seconds: float = param(0.0, doc="how long load takes")
    def train(self, run): raise AssertionError
    def load(self, model_dir, device):
        time.sleep(self.hyperparameters.load_seconds)
        return np.ones(self.hyperparameters.ballast_mb << 20, dtype=np.uint8)
    def predict(self, model, records):
        if records[0, 0] == 901:
            raise MemoryError("no room for it")
        return [[NAME, os.getpid()] for _ in records]
'''


class Fleet:
    """A multi-model server, and the platform's way to put models beside it."""

    def __init__(self, server: Any) -> None:
        self.server = server

    def put(self, name: str, **hyperparameters: Any) -> dict[str, str]:
        """Extract a model as the platform does; the body that loads it."""
        directory = self.server.base / "ml" / "models" / name / "model"
        (directory / "code").mkdir(parents=True)
        (directory / "code" / "own.py").write_text(f"NAME = {name!r}\n{ALGORITHM}")
        (directory / "byoa.json").write_text(json.dumps({
            "byoa": 1, "algorithm": "own:Own", "hyperparameters": hyperparameters,
            "input": {"features": 2, "sample": [[1.0, 2.0]]},
        }))
        return {"model_name": name, "url": URL.format(name)}

    def load(self, name: str, **hyperparameters: Any) -> Any:
        return self.post(self.put(name, **hyperparameters))

    def post(self, body: Any) -> Any:
        return self.server.call("POST", "/models", json.dumps(body),
                                {"Content-Type": "application/json"})

    def invoke(self, name: str, body: str = "1,2\n") -> Any:
        return self.server.call("POST", f"/models/{name}/invoke", body,
                                {"Content-Type": "text/csv"})

    def list(self, query: str = "") -> Any:
        return self.server.call("GET", f"/models{query}")

    def delete(self, name: str) -> Any:
        return self.server.call("DELETE", f"/models/{name}")


@pytest.fixture
def start(servers: Any, door: str) -> Any:
    def begin(**variables: str) -> Fleet:
        return Fleet(servers(door, **{"SAGEMAKER_MULTI_MODEL": "true", **variables}))

    return begin


@pytest.fixture
def fleet(start: Any) -> Fleet:
    return start()


def who(reply: Any) -> str:
    assert reply.status == 200, reply.body
    return reply.json["predictions"][0][0]


def test_the_platforms_sequence_is_answered_byte_for_byte(fleet: Fleet) -> None:
    """FIX-15, CHK-11, MME-03, MME-04, MME-05."""
    body = fleet.put(HASH)
    assert fleet.post(body).status == 200
    assert fleet.post(body).status == 409
    expected = '{"modelName":"a1b2c3","modelUrl":"/opt/ml/models/a1b2c3/model"}'
    listed = fleet.list()
    assert (listed.status, listed.body.decode()) == (200, f'{{"models":[{expected}]}}')
    described = fleet.server.call("GET", f"/models/{HASH}")
    assert (described.status, described.body.decode()) == (200, expected)
    assert fleet.delete(HASH).status == 200
    assert fleet.delete(HASH).status == 404
    assert fleet.server.call("GET", f"/models/{HASH}").status == 404
    assert fleet.list().body == b'{"models":[]}'


def test_each_model_answers_with_code_of_its_own(fleet: Fleet) -> None:
    """MME-06: modules of the same name in two models do not get in each other's way."""
    for name in ("first", "second"):
        assert fleet.load(name).status == 200
    assert [who(fleet.invoke(name)) for name in ("first", "second", "first")] == [
        "first", "second", "first",
    ]
    assert fleet.invoke("third").status == 404
    assert fleet.invoke("third").json["code"] == "MODEL_NOT_LOADED"


def test_ping_is_healthy_without_any_model_and_invocations_names_none(fleet: Fleet) -> None:
    assert fleet.server.ping() == 200
    assert fleet.server.invoke().status == 404


def test_every_worker_has_what_one_of_them_has_loaded(start: Any) -> None:
    """The next request may come to any of them, and so may the one that unloads."""
    fleet = start(BYOA_WORKERS="3")
    assert fleet.load("shared").status == 200
    seen = set()
    end = time.monotonic() + 20
    while len(seen) < 2 and time.monotonic() < end:
        with ThreadPoolExecutor(6) as pool:
            for reply in pool.map(lambda _: fleet.invoke("shared"), range(12)):
                assert who(reply) == "shared"
                seen.add(reply.json["predictions"][0][1])
    assert len(seen) > 1
    assert fleet.delete("shared").status == 200
    assert {fleet.invoke("shared").status for _ in range(12)} == {404}


def test_a_model_that_is_being_loaded_holds_up_no_other(fleet: Fleet) -> None:
    assert fleet.load("quick").status == 200
    slow = fleet.put("slow", load_seconds=3.0)
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(fleet.post, slow)
        answered = 0
        while not loading.done():
            assert who(fleet.invoke("quick")) == "quick"
            assert fleet.server.ping() == 200
            assert fleet.list().status == 200
            answered += 1
        assert loading.result().status == 200
    assert answered > 1


def test_what_does_not_fit_is_507_and_fits_when_room_was_made(start: Any) -> None:
    """MME-03: the platform unloads the least recently used, and tries again."""
    fleet = start(BYOA_MODELS_MEMORY_MB="400")
    assert fleet.load("large", ballast_mb=200).status == 200
    more = fleet.put("more", ballast_mb=200)
    refused = fleet.post(more)
    assert refused.status == 507
    assert refused.json["code"] == "MODEL_MEMORY"
    assert who(fleet.invoke("large")) == "large"
    assert fleet.delete("large").status == 200
    assert fleet.post(more).status == 200
    assert who(fleet.invoke("more")) == "more"


def test_a_prediction_without_memory_is_507(fleet: Fleet) -> None:
    """MME-06, TRAP-33: with 500 the platform would not make room."""
    assert fleet.load("hungry").status == 200
    assert fleet.invoke("hungry", "901,1\n").status == 507
    assert who(fleet.invoke("hungry")) == "hungry"


def test_a_model_that_does_not_load_says_why_and_is_not_there(fleet: Fleet) -> None:
    body = fleet.put("broken")
    code = fleet.server.base / "ml" / "models" / "broken" / "model" / "code" / "own.py"
    code.write_text("import a_module_that_nobody_has\n")
    failed = fleet.post(body)
    assert failed.status == 500
    assert "a_module_that_nobody_has" in failed.json["message"]
    assert fleet.list().json == {"models": []}
    missing = fleet.post({"model_name": "gone", "url": URL.format("gone")})
    assert (missing.status, missing.json["code"]) == (500, "MODEL_URL_MISSING")


def test_the_list_has_pages(fleet: Fleet) -> None:
    """MME-04, CONTRA-33: no token on the last page."""
    for number in range(5):
        assert fleet.load(f"m{number}").status == 200
    first = fleet.list("?limit=2").json
    assert [each["modelName"] for each in first["models"]] == ["m0", "m1"]
    second = fleet.list(f"?limit=2&next_page_token={first['nextPageToken']}").json
    last = fleet.list(f"?limit=2&next_page_token={second['nextPageToken']}").json
    assert [each["modelName"] for each in last["models"]] == ["m4"]
    assert "nextPageToken" not in last
    assert fleet.list("?limit=none").status == 400


@pytest.mark.parametrize("body", [b"", b"[]", b'{"model_name": "a"}', b'{"model_name": 1}',
                                  b'{"model_name": "a/b", "url": "/opt/ml/models/a"}',
                                  b'{"model_name": "a", "url": "/etc"}',
                                  b'{"model_name": "a", "url": "/opt/ml/../../etc"}'])
def test_a_request_that_names_no_model_is_refused_with_an_example(
    fleet: Fleet, body: bytes
) -> None:
    reply = fleet.server.call("POST", "/models", body, {"Content-Type": "application/json"})
    assert (reply.status, reply.json["code"]) == (400, "MODEL_REQUEST_INVALID")
    assert "a1b2c3" in reply.json["expected"] or "slash" in reply.json["expected"]


def test_other_methods_are_refused_by_name(fleet: Fleet) -> None:
    reply = fleet.server.call("DELETE", "/models")
    assert (reply.status, reply.headers["allow"]) == (405, "GET, POST")


def test_nothing_is_left_of_the_catalogue(start: Any, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    fleet = start(TMPDIR=str(scratch), BYOA_WORKERS="2")
    assert fleet.load("any").status == 200
    assert list(scratch.glob("byoa-models-*"))
    fleet.server.terminate()
    assert fleet.server.process.wait(30) == 0
    assert not list(scratch.glob("byoa-models-*"))


def test_a_model_of_the_ordinary_kind_is_one_of_many(fleet: Fleet) -> None:
    ml = fleet.server.base / "ml"
    shutil.copytree(ml / "model", ml / "models" / "plain" / "model")
    assert fleet.post({"model_name": "plain", "url": URL.format("plain")}).status == 200
    assert fleet.invoke("plain", "1,1,1,1\n").json == {"predictions": [10.0]}
