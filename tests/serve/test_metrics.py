"""/metrics of the real server, each door."""

from __future__ import annotations

import json
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor

from tests.serve.exposition import Exposition

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def seen(server) -> Exposition:
    reply = server.call("GET", "/metrics")
    assert (reply.status, reply.headers["content-type"]) == (200, METRICS_TYPE)
    return Exposition(reply.body.decode())


def settled(server, invocations: int) -> Exposition:
    """The metrics once so many invocations are counted: that comes just after their answers."""

    def are_counted() -> bool:
        found = seen(server)
        return (
            found("byoa_requests_total", route="/invocations") == invocations
            and found("byoa_requests_in_flight") == 1  # the one that asks
        )

    server.wait_for(are_counted)
    return seen(server)


def test_whichever_worker_is_asked_answers_with_the_sum_of_all(servers, door):
    """CWM-05: GET /metrics in Prometheus's format, on the port of every route."""
    server = servers(door, BYOA_WORKERS="3")
    with ThreadPoolExecutor(8) as pool:
        good = [pool.submit(server.invoke, "1,2,3,4\n5,6,7,8\n") for _ in range(40)]
        bad = [pool.submit(server.invoke, "1,x\n") for _ in range(10)]
        assert {each.result().status for each in good} == {200}
        assert {each.result().status for each in bad} == {400}
    for _ in range(5):
        found = settled(server, 50)
        assert found("byoa_requests_total", route="/invocations", status="200") == 40
        assert found("byoa_requests_total", route="/invocations", status="400") == 10
        assert found("byoa_records_total") == 80
        assert found("byoa_request_duration_seconds_count") == 50
        assert found("byoa_queue_seconds_count") == 40
        assert found("byoa_batch_records_sum") == 80
        assert 0 < found("byoa_predict_seconds_count") <= 40
        assert found("byoa_predict_seconds_sum") > 0
        assert found("byoa_request_bytes_total") == 40 * 16 + 10 * 4
        assert found("byoa_workers") == found("byoa_workers_planned") == 3
        assert found("byoa_worker_models") == 3
        assert found("byoa_queue_depth") == 0
        processes = found.labels("byoa_resident_memory_bytes", "process")
        assert processes == {"master", "worker-0", "worker-1", "worker-2"}
        assert found("byoa_resident_memory_bytes", process="worker-0") > 1 << 20
    assert found("byoa_requests_total", route="/metrics", status="200") >= 5


def test_the_counts_of_a_killed_worker_stay(servers, door):
    server = servers(door)
    for _ in range(5):
        assert server.invoke().status == 200
    before = settled(server, 5)
    (worker,) = server.workers()
    os.kill(worker, signal.SIGKILL)
    server.wait_for(lambda: server.workers() not in ([], [worker]))
    server.ready()
    assert server.invoke().status == 200
    found = settled(server, 6)
    assert before("byoa_worker_restarts_total") == 0
    assert found("byoa_worker_restarts_total") == 1
    assert found("byoa_requests_total", route="/invocations", status="200") == 6
    assert found("byoa_workers") == 1


def test_what_waits_and_what_runs_is_shown_while_it_does(servers, door):
    server = servers(door)
    with ThreadPoolExecutor(4) as pool:
        slow = [pool.submit(server.invoke, "914,0,0,0\n")]
        server.wait_for(lambda: seen(server)("byoa_requests_in_flight") == 2)
        slow += [pool.submit(server.invoke, "901,0,0,0\n") for _ in range(2)]
        server.wait_for(lambda: seen(server)("byoa_queue_depth") == 2)
        assert {each.result().status for each in slow} == {200}
    found = settled(server, 3)
    assert found("byoa_queue_depth") == 0
    assert found("byoa_predict_seconds_sum") > 3
    assert found("byoa_queue_seconds_sum") > 0


def test_paths_that_are_no_routes_are_counted_together(server):
    for number in range(5):
        assert server.call("GET", f"/no/such/{number}").status == 404
    server.wait_for(
        lambda: seen(server)("byoa_requests_total", route="other", status="404") >= 5
    )
    found = seen(server)
    assert not any("no/such" in each for each in found.labels("byoa_requests_total", "route"))


def test_the_models_of_a_multi_model_server_are_labels_and_unknown_ones_are_not(servers, door):
    """MME-06: a request for a model that there is not must not make a series."""
    server = servers(door, SAGEMAKER_MULTI_MODEL="1", BYOA_WORKERS="2")
    root = server.base / "ml"
    for name in ("a", "b"):
        shutil.copytree(root / "model", root / "models" / name / "model")
        body = json.dumps({"model_name": name, "url": f"/opt/ml/models/{name}/model"})
        loaded = server.call("POST", "/models", body, {"Content-Type": "application/json"})
        assert loaded.status == 200, loaded.body

    def invoke(name: str) -> int:
        headers = {"Content-Type": "text/csv"}
        return server.call("POST", f"/models/{name}/invoke", "1,2,3,4\n", headers).status

    assert [invoke("a") for _ in range(3)] == [200] * 3
    assert invoke("b") == 200
    assert {invoke(f"unknown-{number}") for number in range(5)} == {404}
    server.wait_for(lambda: seen(server)(
        "byoa_requests_total", route="/models/{model}/invoke") == 9
    )
    found = seen(server)
    assert found.labels("byoa_requests_total", "model") == {"a", "b"}
    assert found("byoa_requests_total", model="a", status="200") == 3
    assert found("byoa_requests_total", route="/models/{model}/invoke", status="404") == 5
    assert found("byoa_models") == 2
    assert 2 <= found("byoa_worker_models") <= 4
    assert found("byoa_records_total") == 4


def test_metrics_is_a_route_of_get_alone(server):
    reply = server.call("POST", "/metrics")
    assert (reply.status, reply.headers["allow"]) == (405, "GET")
