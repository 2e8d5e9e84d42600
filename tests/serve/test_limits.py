"""The limits of the table of settings, in every content type, through HTTP."""

from __future__ import annotations

import gzip
import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byoa.container.formats import recordio
from byoa.container.formats.limits import Limits
from byoa.serve.settings import read
from tests.bodies import ONE_RECORD, TYPES, body, chunk, png, sparse_record
from tests.serve.conftest import DOORS, Servers

# It takes records of any width, so that nothing but a limit refuses them.
ALGORITHM = '''
from byoa.algorithms import Algorithm

class Summing(Algorithm):
    def train(self, run): raise AssertionError
    def load(self, model_dir, device): return None
    def predict(self, model, records): return records.sum(axis=1)
'''
SCRIPT = "def predict_fn(data, model): return data.sum(axis=1)\ndef model_fn(path): return None\n"
SEVERAL = [name for name in TYPES if name not in ONE_RECORD]
LIMITS = {"BYOA_MAX_RECORDS": "4", "BYOA_MAX_COLUMNS": "24", "BYOA_MAX_VALUES": "64"}


def prepare(model_dir: Path, features: int | None = None) -> None:
    (model_dir / "code").mkdir()
    (model_dir / "code" / "summing.py").write_text(ALGORITHM)
    given = {} if features is None else {"input": {"features": features}}
    (model_dir / "byoa.json").write_text(json.dumps({
        "byoa": 1, "algorithm": "summing:Summing", "hyperparameters": {}, **given,
    }))


@pytest.fixture(scope="module")
def server(tmp_path_factory: Any, clean_environment: dict[str, str]) -> Any:
    starter = Servers(tmp_path_factory.mktemp("limits") / "serve", clean_environment)
    yield starter(prepare=prepare, **LIMITS)
    starter.stop()


@pytest.fixture(scope="module")
def wide_server(tmp_path_factory: Any, clean_environment: dict[str, str]) -> Any:
    """A server with the limits that a server has."""
    starter = Servers(tmp_path_factory.mktemp("wide") / "serve", clean_environment)
    yield starter(prepare=prepare)
    starter.stop()


def rows(records: int, columns: int) -> list[list[int]]:
    return [[8] * columns for _ in range(records)]


def refused(reply: Any, code: str, size: int, limit: int, variable: str) -> None:
    """A 413 with everything that its reader needs, short enough for the platform (ERR-01)."""
    assert reply.status == 413, reply.body
    told = reply.json
    assert (told["code"], told["size"], told["limit"]) == (code, size, limit)
    assert told["variable"] == variable
    assert str(limit) in told["message"] + told["expected"]
    assert variable in told["remedy"] and "batch transform" in told["remedy"]
    assert told["request_id"] and len(reply.body) <= 2048


def test_the_limits_are_settings_of_the_table():
    assert read(LIMITS).limits == Limits(4, 24, 64)
    limits = read({}).limits
    # What fits into the platform's largest body (BT-05), a byte a value, is never too much.
    assert limits.values > 100 << 20
    assert limits.records > 6_291_456


@pytest.mark.parametrize("content_type", TYPES)
def test_a_body_of_just_the_limits_is_answered(server, content_type):
    # HOST-32
    shape = (1, 24) if content_type in ONE_RECORD else (2, 24)
    reply = server.invoke(body(content_type, rows(*shape)), content_type)
    assert reply.status == 200, reply.body
    assert reply.json["predictions"] == pytest.approx([192] * shape[0], abs=24)


@pytest.mark.parametrize("content_type", SEVERAL)
def test_one_record_too_many_is_answered_413(server, content_type):
    """HOST-32: the same answer as for a body that is too long."""
    assert server.invoke(body(content_type, rows(4, 2)), content_type).status == 200
    reply = server.invoke(body(content_type, rows(5, 2)), content_type)
    refused(reply, "RECORDS_TOO_MANY", 5, 4, "BYOA_MAX_RECORDS")


@pytest.mark.parametrize("content_type", TYPES)
def test_one_column_too_many_is_answered_413(server, content_type):
    # HOST-32
    reply = server.invoke(body(content_type, rows(1, 25)), content_type)
    code = "IMAGE_TOO_LARGE" if content_type in (
        *ONE_RECORD, "application/x-recordio"
    ) else "RECORD_TOO_WIDE"
    refused(reply, code, 25, 24, "BYOA_MAX_COLUMNS")


@pytest.mark.parametrize("content_type", SEVERAL)
def test_values_beyond_the_limit_are_answered_413(server, content_type):
    # HOST-32
    reply = server.invoke(body(content_type, rows(3, 22)), content_type)
    refused(reply, "VALUES_TOO_MANY", 66, 64, "BYOA_MAX_VALUES")


def test_an_image_beyond_the_limit_of_values_names_that_variable(servers):
    # HOST-32
    wide = {**LIMITS, "BYOA_MAX_COLUMNS": "1000"}
    server = servers(prepare=prepare, **wide)
    reply = server.invoke(body("image/png", rows(1, 65)), "image/png")
    refused(reply, "IMAGE_TOO_LARGE", 65, 64, "BYOA_MAX_VALUES")


@pytest.mark.parametrize("kind", DOORS)
def test_every_door_answers_413(servers, kind):
    # HOST-32
    server = servers(kind, prepare=prepare, **LIMITS)
    refused(server.invoke("1\n" * 5), "RECORDS_TOO_MANY", 5, 4, "BYOA_MAX_RECORDS")
    many = "1\n" * 100_000  # decoded beside the event loop
    refused(server.invoke(many), "RECORDS_TOO_MANY", 100_000, 4, "BYOA_MAX_RECORDS")
    assert server.invoke("1\n").status == 200


def test_the_default_input_fn_of_a_script_has_the_limits_too(servers):
    def script(model_dir: Path) -> None:
        (model_dir / "byoa.json").unlink()
        (model_dir / "code").mkdir()
        (model_dir / "code" / "inference.py").write_text(SCRIPT)

    server = servers(prepare=script, **LIMITS)
    assert server.invoke("1,2\n").json == [3]
    refused(server.invoke("1\n" * 5), "RECORDS_TOO_MANY", 5, 4, "BYOA_MAX_RECORDS")


def bomb(width: int, height: int) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + png([[1]])[33:]


def claimed(*shape: int) -> bytes:
    """An array's header without the array."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    return file.getvalue()


def equal_rows() -> bytes:
    """200 million zeros in a few kilobytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    run = pa.table({"a": pa.array(np.zeros(1 << 20, np.int8))})
    with pq.ParquetWriter(file, run.schema) as writer:
        for _ in range(200):
            writer.write_table(run)
    return file.getvalue()


# Each speaks of a gigabyte or more.
BOMBS = [
    ("text/libsvm", b"1 1000000000:1\n", "RECORD_TOO_WIDE"),
    ("text/libsvm", b"1 " + b"9" * 4300 + b":1\n", "RECORD_TOO_WIDE"),
    ("text/libsvm; features=900000000", b"1 1:1\n", "RECORD_TOO_WIDE"),
    ("text/libsvm", b"1 60000000:1\n" * 20, "VALUES_TOO_MANY"),
    ("application/x-recordio-protobuf",
     recordio.frame(sparse_record([1], [1], [10**12])), "RECORD_TOO_WIDE"),
    ("application/x-recordio-protobuf",
     recordio.frame(sparse_record([1], [1], [10**6, 10**6])), "RECORD_TOO_WIDE"),
    ("application/x-recordio-protobuf",
     recordio.frame(sparse_record([1], [1], [2**63] * 1000)), "RECORD_TOO_WIDE"),
    ("application/json",
     b'{"features": {"keys": [1], "shape": [1000000000000], "values": [1]}}', "RECORD_TOO_WIDE"),
    ("application/json",
     b'{"features": {"keys": [1], "shape": [' + b"9" * 4300 + b', 9], "values": [1]}}',
     "RECORD_TOO_WIDE"),
    ("application/jsonlines",
     b'{"features": {"keys": [1], "shape": [60000000], "values": [1]}}\n' * 20, "VALUES_TOO_MANY"),
    ("application/x-npy", claimed(10**9, 9), "BODY_MALFORMED"),
    ("application/x-npy", claimed(*[10**9] * 30), "BODY_MALFORMED"),
    ("application/x-parquet", equal_rows, "RECORDS_TOO_MANY"),
    ("image/png", bomb(60_000, 60_000), "IMAGE_TOO_LARGE"),
    ("application/x-recordio", recordio.frame(bomb(60_000, 60_000)), "IMAGE_TOO_LARGE"),
]


def peak_bytes(server: Any) -> int:
    """The most memory that any worker has had since `forget_peak`."""
    return max(_status(pid, "VmHWM") for pid in server.workers())


def _status(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


@pytest.mark.parametrize(
    ("content_type", "given", "code"), BOMBS,
    ids=[f"{name.partition(';')[0]}-{number}" for number, (name, _, _) in enumerate(BOMBS)],
)
def test_a_few_bytes_that_speak_of_gigabytes_are_refused_before_they_take_memory(
    wide_server, content_type, given, code
):
    # HOST-32, TRAIN-124
    packed = given() if callable(given) else given
    wide_server.invoke()
    (pid,) = wide_server.workers()
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # forget the peak
    before = peak_bytes(wide_server)
    reply = wide_server.invoke(packed, content_type, timeout=60)
    assert reply.json["code"] == code, reply.json
    assert reply.status == (400 if code == "BODY_MALFORMED" else 413)
    assert len(reply.body) <= 2048
    assert peak_bytes(wide_server) - before < 160 << 20
    assert wide_server.workers() == [pid]


@pytest.mark.parametrize(
    ("content_type", "given"),
    [
        ("text/libsvm", b"1 60000000:1\n"),
        ("application/json", b'{"features": {"keys": [1], "shape": [60000000], "values": [1]}}'),
        ("application/x-recordio-protobuf",
         recordio.frame(sparse_record([1], [1], [60_000_000]))),
        ("image/png", bomb(8_000, 8_000)),
    ],
    ids=["libsvm", "json", "protobuf", "image"],
)
def test_a_record_that_is_wider_than_the_model_is_refused_before_it_takes_memory(
    servers, content_type, given
):
    """Within the limits, but no such record fits the model."""
    server = servers(prepare=lambda directory: prepare(directory, 4))
    server.invoke()
    (pid,) = server.workers()
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    before = peak_bytes(server)
    reply = server.invoke(given, content_type)
    assert (reply.status, reply.json["code"]) == (400, "RECORD_WIDTH"), reply.json
    assert "4 features" in reply.json["expected"]
    assert peak_bytes(server) - before < 64 << 20


def test_a_body_that_inflates_past_the_limit_says_what_one_that_is_too_long_says(servers):
    # HOST-32, BT-04
    server = servers(prepare=prepare, SAGEMAKER_MAX_PAYLOAD_IN_MB="1")
    limit = 1 << 20
    plain, packed = b"1\n" * limit, gzip.compress(b"1\n" * limit)
    refused(
        server.invoke(plain), "BODY_TOO_LARGE", len(plain), limit, "SAGEMAKER_MAX_PAYLOAD_IN_MB"
    )
    refused(
        server.invoke(packed, Content_Encoding="gzip"), "BODY_TOO_LARGE", limit + 1, limit,
        "SAGEMAKER_MAX_PAYLOAD_IN_MB",
    )


@pytest.mark.parametrize("kind", DOORS)
def test_the_limit_of_the_head_is_a_setting_too(servers, kind):
    # HOST-35
    server = servers(kind, BYOA_MAX_HEAD_BYTES="2048")
    assert server.invoke(X_Note="n" * 1500).status == 200
    reply = server.invoke(X_Note="n" * 3000)
    assert (reply.status, reply.json["code"]) == (431, "HEAD_TOO_LARGE")
    assert "2048 bytes (BYOA_MAX_HEAD_BYTES)" in reply.json["expected"]
    assert servers(kind, BYOA_MAX_HEAD_BYTES="16384").invoke(X_Note="n" * 12_000).status == 200
