"""One line of JSON for each request, from a thread that holds up nobody."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from byoa.serve.access_log import AccessLog

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def lines(server, path: str = "/invocations") -> list[dict]:
    found = [json.loads(each) for each in server.log.splitlines() if each.startswith('{"time"')]
    return [each for each in found if each["path"] == path]


def line(server, count: int = 1) -> dict:
    """The last of so many lines of invocations, once they are there."""
    server.wait_for(lambda: len(lines(server)) >= count)
    assert len(lines(server)) == count
    return lines(server)[-1]


def test_an_answered_request_is_one_line_with_what_it_took(servers, door):
    server = servers(door, BYOA_ACCESS_LOG="1")
    reply = server.invoke("1,2,3,4\n5,6,7,8\n", traceparent=TRACE, X_Request_Id="r-1",
                          X_Amzn_Trace_Id="Root=1-5759e988-bd862e3fe1be46a994272793")
    assert reply.status == 200
    found = line(server)
    assert found["time"].endswith("Z") and found["pid"] in server.workers()
    expected = {
        "request_id": "r-1", "method": "POST", "path": "/invocations", "status": 200,
        "bytes_in": 16, "bytes_out": len(reply.body), "records": 2, "batch_records": 2,
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "parent_id": "00f067aa0ba902b7",
    }
    assert {name: found[name] for name in expected} == expected
    assert 0 <= found["queue_ms"] and 0 < found["predict_ms"] <= found["total_ms"]


def test_a_failed_request_has_the_id_of_its_answer_and_nothing_of_its_body(servers, door):
    server = servers(door, BYOA_ACCESS_LOG="1")
    reply = server.invoke("1,2,3,secret\n")
    found = line(server)
    assert (found["status"], found["request_id"]) == (400, reply.json["request_id"])
    assert "predict_ms" not in found and "trace_id" not in found
    server.call("POST", "/invocations?key=secret", "9,9\n", {"Content-Type": "text/csv"})
    assert line(server, 2)["status"] == 400
    server.invoke("902,0,0,0\n", X_Amzn_Trace_Id="Root=1-5759e988-bd862e3fe1be46a994272793")
    failed = line(server, 3)
    assert (failed["status"], failed["records"]) == (500, 1)
    assert failed["trace_id"] == "1-5759e988-bd862e3fe1be46a994272793"
    assert not any("secret" in json.dumps(each) for each in lines(server))


def test_the_model_of_several_is_named(servers, door):
    server = servers(door, BYOA_ACCESS_LOG="1", SAGEMAKER_MULTI_MODEL="1")
    body = json.dumps({"model_name": "m", "url": "/opt/ml/model"})
    assert server.call("POST", "/models", body).status == 200
    reply = server.call("POST", "/models/m/invoke", "1,2,3,4\n", {"Content-Type": "text/csv"})
    assert reply.status == 200
    server.wait_for(lambda: lines(server, "/models/m/invoke"))
    assert lines(server, "/models/m/invoke")[0]["model"] == "m"


def test_the_log_is_off_until_it_is_asked_for(server):
    server.invoke()
    assert '{"time"' not in server.log


def test_the_last_lines_are_written_when_the_server_ends(servers, door):
    server = servers(door, BYOA_ACCESS_LOG="1")
    for _ in range(20):
        server.invoke()
    server.terminate()
    assert server.process.wait(30) == 0
    assert len(lines(server)) == 20


def test_a_stdout_that_nobody_reads_holds_up_nobody_and_what_is_lost_is_told():
    """A full pipe: lines are dropped, never waited for, and counted."""
    reader, writer = os.pipe()
    dropped = []
    log = AccessLog(descriptor=writer, limit=50, on_drop=lambda: dropped.append(1))
    for number in range(2000):  # more than the pipe and the queue hold
        log.write({"time": 0.0, "number": number, "text": "x" * 1000})
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read_to_end, reader)
        log.close(30)
        os.close(writer)
        found = [json.loads(each) for each in reading.result().splitlines()]  # each is whole
    os.close(reader)
    told = sum(each.get("dropped", 0) for each in found)
    assert told == len(dropped) > 0
    assert sum("number" in each for each in found) + told == 2000


def test_a_stdout_that_is_closed_costs_lines_alone():
    reader, writer = os.pipe()
    os.close(reader)
    dropped = []
    log = AccessLog(descriptor=writer, on_drop=lambda: dropped.append(1))
    end = time.monotonic() + 30
    while not dropped and time.monotonic() < end:
        log.write({"time": 0.0})
        time.sleep(0.01)
    assert dropped
    log.close(10)
    os.close(writer)


@pytest.mark.parametrize("value", [None, 0, 1.5, "ü\n\""])
def test_a_line_is_one_line_of_json_without_what_is_none(value):
    reader, writer = os.pipe()
    log = AccessLog(descriptor=writer)
    log.write({"time": 1e9 + 0.25, "value": value})
    log.close(10)
    found = os.read(reader, 1 << 16)
    assert found.count(b"\n") == 1
    expected = {"time": "2001-09-09T01:46:40.250Z"} | ({} if value is None else {"value": value})
    assert json.loads(found) == expected
    os.close(reader)
    os.close(writer)


def read_to_end(descriptor: int) -> bytes:
    parts = []
    while part := os.read(descriptor, 1 << 16):
        parts.append(part)
    return b"".join(parts)
