"""Every error says which request it answers, and of which trace."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("GET", "/no-such-route", None, {}, 404),
        ("GET", "/invocations", None, {}, 405),
        ("POST", "/ping", "x", {}, 405),
        ("POST", "/metrics", "x", {}, 405),
        ("POST", "/invocations", None, {}, 400),
        ("POST", "/invocations", "1,x\n", {"Content-Type": "text/csv"}, 400),
        ("POST", "/invocations", "x", {"Content-Type": "image/tiff"}, 415),
        ("POST", "/invocations", "1,2,3,4\n",
         {"Content-Type": "text/csv", "Accept": "image/png"}, 406),
        ("POST", "/invocations", "1" * 2_000_000, {"Content-Type": "text/csv"}, 413),
        ("POST", "/invocations", "902,0,0,0\n", {"Content-Type": "text/csv"}, 500),
    ],
)
def test_an_error_has_the_callers_request_id_and_trace(
    server, method, path, body, headers, status
):
    given = {"X-Request-Id": "r-77", "traceparent": TRACE, **headers}
    reply = server.call(method, path, body, given)
    assert reply.status == status
    assert reply.headers["x-request-id"] == reply.json["request_id"] == "r-77"
    assert reply.json["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    own = server.call(method, path, body, headers)
    assert own.status == status
    assert own.headers["x-request-id"] == own.json["request_id"] != "r-77"
    assert "trace_id" not in own.json


def test_a_server_that_is_not_ready_or_full_tells_the_request_id_too(servers, door):
    loading = servers(door, wait=False, model={"load_seconds": 60.0})
    loading.wait_for(lambda: loading.ping() is not None)
    for reply in (loading.call("GET", "/ping"), loading.invoke()):
        assert reply.status == 503
        assert reply.headers["x-request-id"]
    full = servers(door, BYOA_QUEUE_LIMIT="1", SAGEMAKER_MODEL_SERVER_TIMEOUT="5")
    with ThreadPoolExecutor(6) as pool:
        replies = [pool.submit(full.invoke, "913,0,0,0\n") for _ in range(6)]
        errors = [each.result() for each in replies if each.result().status != 200]
    assert errors
    assert all(each.headers["x-request-id"] == each.json["request_id"] for each in errors)


def test_an_answer_that_is_no_error_carries_none(server):
    """The caller's own id is in its hands; a new one would cost every answer."""
    reply = server.invoke(X_Request_Id="r-1", traceparent=TRACE)
    assert reply.status == 200
    assert not {"x-request-id", "traceparent", "traceresponse"} & set(reply.headers)


def test_what_no_door_should_let_through_is_answered_500_with_an_id(servers, door, tmp_path):
    """Here the catalogue of a multi-model server is gone from the disk."""
    server = servers(door, SAGEMAKER_MULTI_MODEL="1", TMPDIR=str(tmp_path))
    (catalogue,) = (each for each in tmp_path.glob("byoa-models-*") if each.is_dir())
    catalogue.rmdir()
    for path in ("/models", "/ping", "/metrics"):
        reply = server.call("GET", path)
        assert (reply.status, reply.json["code"]) == (500, "SERVER_FAILED")
        assert reply.headers["x-request-id"] == reply.json["request_id"]
        server.wait_for(lambda request_id=reply.json["request_id"]: request_id in server.log)
