"""Requests that share a call of predict, through HTTP against a spawned server, each door."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# A record says what predict does; each prediction tells how many records shared its call.
ALGORITHM = '''
import time
import numpy as np
from byoa.algorithms import Algorithm

class Counting(Algorithm):
    def train(self, run): raise AssertionError
    def load(self, model_dir, device): return None
    def predict(self, model, records):
        if (records[:, 0] == 901).any():
            time.sleep(1.5)
        if (records[:, 0] == 902).any():
            raise ValueError("a value that nobody likes")
        return {"value": records.sum(axis=1), "together": np.full(len(records), len(records))}
'''
SLOW = "901,0\n"


def prepare(model_dir: Path) -> None:
    (model_dir / "code").mkdir()
    (model_dir / "code" / "counting.py").write_text(ALGORITHM)
    (model_dir / "byoa.json").write_text(json.dumps({
        "byoa": 1, "algorithm": "counting:Counting", "hyperparameters": {},
        "input": {"features": 2, "sample": [[1.0, 2.0]]},
    }))


@pytest.fixture
def server(servers: Any, door: str) -> Any:
    return servers(door, prepare=prepare, BYOA_INLINE="0")


def npy(*rows: tuple[float, ...]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array(rows, dtype=np.float32))
    return buffer.getvalue()


def predictions(reply: Any) -> list[tuple[float, int]]:
    assert reply.status == 200, reply.body
    return [(each["value"], each["together"]) for each in reply.json["predictions"]]


def while_busy(server: Any, *requests: tuple[Any, str]) -> list[Any]:
    """The replies to requests that come while the model is busy with another."""
    with ThreadPoolExecutor(len(requests) + 1) as pool:
        slow = pool.submit(server.invoke, SLOW)
        server.wait_for(lambda: waiting(server) == 0 and running(server))
        replies = [pool.submit(server.invoke, body, kind) for body, kind in requests]
        found = [each.result(20) for each in replies]
        assert slow.result(20).status == 200
    return found


def running(server: Any) -> bool:
    """Whether the worker holds a connection whose request it has read."""
    return bool(_connections(server))


def waiting(server: Any) -> int:
    """Bytes of requests that the worker has not read yet."""
    return sum(_connections(server))


def _connections(server: Any) -> list[int]:
    table = Path("/proc/net/tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in table]
    port = f":{server.port:04X}"
    return [int(row[4].partition(":")[2], 16) for row in rows
            if row[1].endswith(port) and row[3] == "01"]


def test_requests_of_any_content_type_share_a_call(server):
    """Decoded before and encoded after, they are all the same to the model."""
    replies = while_busy(
        server, ("1,2\n", "text/csv"), ('{"instances": [[3, 4], [5, 6]]}', "application/json"),
        (npy((7, 8)), "application/x-npy"),
    )
    assert list(map(predictions, replies)) == [[(3, 4)], [(7, 4), (11, 4)], [(15, 4)]]


def test_a_bad_record_fails_its_own_request_and_is_numbered(server):
    good, bad = while_busy(
        server, ("1,2\n", "text/csv"), ("3,4\n902,6\n7,8\n", "text/csv")
    )
    assert predictions(good) == [(3, 1)]
    assert bad.status == 500
    assert bad.json["record"] == 2
    assert "a value that nobody likes" in bad.json["message"]


@pytest.mark.parametrize("door", ["express", "express-gunicorn"])
def test_a_client_that_has_left_is_dropped_from_the_call(servers, door):
    server = servers(door, prepare=prepare, BYOA_INLINE="0")
    body = b"1,2\n"
    head = (
        f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(server.invoke, SLOW)
        server.wait_for(lambda: waiting(server) == 0 and running(server))
        leaving = server.raw()
        leaving.sendall(head + body)
        server.wait_for(lambda: waiting(server) == 0 and len(_connections(server)) == 2)
        leaving.close()
        server.wait_for(lambda: len(_connections(server)) == 1)
        stays = pool.submit(server.invoke, "5,6\n")
        assert predictions(stays.result(20)) == [(11, 1)]
        assert slow.result(20).status == 200


def test_one_request_a_call_can_be_asked_for(servers, door):
    server = servers(door, prepare=prepare, BYOA_INLINE="0", BYOA_MAX_BATCH="1")
    replies = while_busy(server, ("1,2\n", "text/csv"), ("3,4\n", "text/csv"))
    assert list(map(predictions, replies)) == [[(3, 1)], [(7, 1)]]
