"""Whatever a client sends: an answer or a 4xx, from a worker that lives on in bounded memory.

And whatever is asked at the same time: each request gets the answer that it gets alone.
`make test-long` tries ten thousand bodies for each format.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from byoa.container.formats import recordio
from tests.bodies import ONE_RECORD, TYPES, body, sparse_record
from tests.faults import COUNT, FORMATS, PARAMETERS, RUNS, encoded, many
from tests.serve.conftest import DOORS, InferenceServer, Servers

# Records of any width, so that no body is refused for what the model takes.
ALGORITHM = '''
from byoa.algorithms import Algorithm

class Summing(Algorithm):
    def train(self, run): raise AssertionError
    def load(self, model_dir, device): return None
    def predict(self, model, records):
        width = [records.shape[1]] * len(records)
        return {"sum": records.sum(axis=1), "first": records[:, 0], "width": width}
'''
MEGABYTE = 1 << 20
# The largest body has 1 MB, and its records at most 4 MB; a reader may hold several copies.
ALLOWED_BYTES = 200 * MEGABYTE
SECONDS = 60  # in which any answer comes: a hang is a failure


def prepare(model_dir: Path) -> None:
    (model_dir / "code").mkdir()
    (model_dir / "code" / "summing.py").write_text(ALGORITHM)
    (model_dir / "byoa.json").write_text(json.dumps({
        "byoa": 1, "algorithm": "summing:Summing", "hyperparameters": {},
    }))


class Watched:
    """A server with one worker, of which it is known what memory it had at first."""

    def __init__(self, server: InferenceServer) -> None:
        self.server = server
        for name in TYPES:  # every library is loaded
            assert server.invoke(body(name, [[1, 2, 3]]), name).status == 200
        (self.pid,) = server.workers()
        self.before = self.peak()

    def forget(self) -> None:
        """The peak so far."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def peak(self) -> int:
        """The worker's largest resident memory in bytes, since it was forgotten."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(each.split()[1]) << 10 for each in lines if each.startswith("VmHWM:"))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: Any, clean_environment: dict[str, str]) -> Iterator[Watched]:
    starter = Servers(tmp_path_factory.mktemp("any") / "serve", clean_environment)
    yield Watched(starter(
        prepare=prepare, SAGEMAKER_MAX_PAYLOAD_IN_MB="1", BYOA_MAX_VALUES=str(MEGABYTE)
    ))
    starter.stop()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("run", RUNS)
@many
@given(data=st.data(), parameters=PARAMETERS)
def test_any_body_is_answered_or_refused_and_harms_nobody(watched, name, run, data, parameters):
    """ITK-05, CHK-06, pain 36."""
    content_type = data.draw(st.sampled_from(FORMATS[name].media_types))
    content_type += "".join(f"; {key}={value}" for key, value in parameters.items())
    given_body, coding = data.draw(encoded(name))
    watched.forget()
    headers = {"Content-Type": content_type}
    if coding is not None:
        headers["Content-Encoding"] = coding
    reply = watched.server.call("POST", "/invocations", given_body, headers, timeout=SECONDS)
    assert reply.status in (200, 400, 413, 415), reply.body
    if reply.status != 200:
        told = reply.json
        assert told["code"].isupper() and told["message"]
        assert len(reply.body) <= 2560  # what the platform passes on, and little more (ERR-01)
    assert watched.server.workers() == [watched.pid]
    assert watched.peak() - watched.before < ALLOWED_BYTES


# Of each of these the reading once grew with the square of its length, to minutes or hours.
LONG: dict[str, tuple[str, bytes, int]] = {
    "an index twice": (
        "text/libsvm", b"1 " + b" ".join(b"%d:1" % i for i in (*range(600_000), 599_999)), 400
    ),
    "a shape in protobuf": (
        "application/x-recordio-protobuf",
        recordio.frame(sparse_record([1], [1], [(1 << 63) - 1] * 600_000)), 413,
    ),
    "a shape in JSON": (
        "application/json", b'{"features": {"keys": [1], "values": [1], "shape": ['
        + b"9000000000000000000," * 290_000 + b"9]}}", 413,
    ),
    "a quoted header": (
        "text/csv; header=present", b'"' + b"\n" * 6_000_000 + b'"\n1,2\n', 200
    ),
    "punycode": ("text/csv; charset=punycode", b"1,2-" + b"9" * 4_000_000, 415),
    "empty members": ("text/csv", gzip.compress(b"") * 300_000, 400),
}


@pytest.mark.parametrize("name", LONG)
def test_a_long_body_is_read_in_time_that_grows_with_its_length_alone(servers, name):
    # TRAP-08
    server = servers(prepare=prepare)
    content_type, sent, status = LONG[name]
    assert len(sent) <= 6_291_456  # what the platform lets through (HOST-32)
    headers = {"Content-Type": content_type}
    if name == "empty members":
        headers["Content-Encoding"] = "gzip"
    reply = server.call("POST", "/invocations", sent, headers, timeout=SECONDS)
    assert reply.status == status, reply.body[:500]


# --- together and alone ---------------------------------------------------------------------------

SEVERAL = tuple(name for name in TYPES if name not in ONE_RECORD)
_row = st.lists(st.integers(0, 255), min_size=3, max_size=3)
_requests = st.lists(
    st.tuples(st.sampled_from(SEVERAL), st.lists(_row, min_size=1, max_size=4))
    | st.tuples(st.sampled_from(["application/x-image", "image/png"]), st.lists(
        _row, min_size=1, max_size=1
    ))
    | st.tuples(st.sampled_from(SEVERAL), st.just(None)),  # one that is refused
    min_size=1, max_size=9,
)


@pytest.fixture(scope="module", params=list(DOORS))
def any_server(
    request: pytest.FixtureRequest, tmp_path_factory: Any, clean_environment: dict[str, str]
) -> Iterator[InferenceServer]:
    starter = Servers(tmp_path_factory.mktemp("together") / "serve", clean_environment)
    yield starter(request.param, prepare=prepare, BYOA_INLINE="0")
    starter.stop()


@pytest.fixture(scope="module")
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(9) as pool:
        yield pool


@settings(many, max_examples=max(20, COUNT // 20))
@given(requests=_requests)
@example(requests=[(name, [[1, 2, 3], [4, 5, 6]]) for name in SEVERAL])
def test_any_composition_gives_each_request_what_it_gets_alone(any_server, clients, requests):
    """Of any content types, sent at once; records in their order, each its own answer."""
    def ask(each: Any) -> Any:
        content_type, rows = each
        sent = b"\xff{" if rows is None else body(content_type, rows)
        return any_server.invoke(sent, content_type, "application/json", timeout=SECONDS)

    for each, reply in zip(requests, clients.map(ask, requests), strict=True):
        rows = each[1]
        if rows is None:
            assert reply.status == 400, reply.body
            continue
        assert reply.status == 200, reply.body
        assert reply.json["predictions"] == [
            {"sum": sum(row), "first": row[0], "width": 3} for row in rows
        ]
