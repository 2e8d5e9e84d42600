"""From start to stop of the real server: loading, failing, draining, replacing, refusing."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests.serve.exposition import Exposition


def test_ping_says_loading_until_the_model_is_loaded(servers, door):
    """HOST-20, HOST-25: the listener is up at once, 200 comes with the model."""
    server = servers(door, wait=False, model={"load_seconds": 0.8})
    server.wait_for(lambda: server.ping() is not None)
    ping = server.call("GET", "/ping", timeout=2)
    assert (ping.status, ping.json["state"]) == (503, "loading")
    early = server.invoke()
    assert (early.status, early.json["code"]) == (503, "MODEL_LOADING")
    assert early.headers["retry-after"]
    server.ready()
    assert server.invoke().json == {"predictions": [30]}


def test_a_model_that_does_not_load_is_told_by_ping_and_log_and_ends_the_server(servers):
    """Pain 1: the reason is in the body, once in the log, and the exit code is not 0."""
    server = servers(
        wait=False, model={"load_error": "checkpoint is of 1987"},
        BYOA_LOAD_FAILURE_SECONDS="3", BYOA_WORKERS="2",
    )
    server.wait_for(lambda: server.ping() is not None)
    reason = "RuntimeError: checkpoint is of 1987"
    for ask in (partial(server.call, "GET", "/ping"), server.invoke):
        replies = []  # the other worker may still be loading

        def told(ask=ask, replies=replies) -> bool:
            replies.append(ask())
            return replies[-1].json.get("message") == reason

        server.wait_for(told)
        assert (replies[-1].status, replies[-1].json["state"]) == (503, "failed")
        assert "scripted.py" in replies[-1].json["where"]
    assert server.process.wait(30) == 1
    assert server.log.count("the model did not load") == 1
    assert server.log.count("Traceback") == 1  # the author's


def test_a_load_that_calls_exit_is_a_failed_load(servers):
    server = servers(wait=False, model={"load_error": "exit"}, BYOA_LOAD_FAILURE_SECONDS="0")
    assert server.process.wait(30) == 1
    assert "SystemExit: 7" in server.log


@pytest.mark.parametrize("door", ["flask", "express"])
def test_workers_that_fail_together_end_the_server_in_order(servers, door):
    """Pain 1: gunicorn's own traceback does not bury the reason."""
    server = servers(
        door, wait=False, prepare=lambda model: (model / "byoa.json").unlink(),
        BYOA_LOAD_FAILURE_SECONDS="0", BYOA_WORKERS="4",
    )
    assert server.process.wait(30) == 1
    assert server.log.count("[MODEL_MISSING]") == 1
    assert "Traceback" not in server.log and "HaltServer" not in server.log


def test_a_load_that_takes_too_long_has_failed(servers):
    """ITK-03: SAGEMAKER_STARTUP_TIMEOUT."""
    server = servers(
        wait=False, model={"load_seconds": 30.0}, SAGEMAKER_STARTUP_TIMEOUT="1",
        BYOA_LOAD_FAILURE_SECONDS="0",
    )
    assert server.process.wait(30) == 1
    assert "MODEL_LOAD_TIMEOUT" in server.log


def test_a_model_that_fails_its_own_sample_is_never_ready(servers):
    """HOST-25, pain 23: 200 means that a prediction has been made."""

    def prepare(model: Path) -> None:
        manifest = json.loads((model / "byoa.json").read_text())
        manifest["input"]["sample"] = [[902.0, 0.0, 0.0, 0.0]]
        (model / "byoa.json").write_text(json.dumps(manifest))

    server = servers(wait=False, prepare=prepare)
    server.wait_for(lambda: server.ping() is not None)
    server.wait_for(lambda: server.call("GET", "/ping").json["state"] == "failed")
    assert "eigenvalues" in server.call("GET", "/ping").json["message"]


def test_a_model_in_a_wrapper_directory_is_recognised(servers):
    """HOST-42, TRAP-21, pain 1."""

    def prepare(model: Path) -> None:
        (model / "mine").mkdir()
        for name in ("byoa.json", "weights.npy"):
            (model / name).rename(model / "mine" / name)

    server = servers(wait=False, prepare=prepare)
    server.wait_for(lambda: server.ping() is not None)
    server.wait_for(lambda: server.call("GET", "/ping").json["state"] == "failed")
    reason = server.call("GET", "/ping").json
    assert "holds mine/byoa.json, expected byoa.json at the root" in reason["message"]
    assert "tar -C mine" in reason["remedy"]


def test_workers_that_die_while_loading_end_the_server(servers):
    """Not a restart for ever behind a port that never answers (pain 7)."""
    server = servers(wait=False, model={"load_error": "killed"})
    assert server.process.wait(30) == 1
    assert "workers died while they loaded the model" in server.log


def test_nothing_is_written_into_the_model_directory(servers):
    """HOST-40, CHK-07, TRAP-42: no bytecode either, where the model brings its own code."""
    def prepare(model: Path) -> None:
        (model / "code").mkdir()
        (model / "code" / "packed.py").write_text("from scripted import Scripted\n")
        manifest = json.loads((model / "byoa.json").read_text())
        manifest["algorithm"] = "packed:Scripted"
        (model / "byoa.json").write_text(json.dumps(manifest))
        for path in [model, *model.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)

    server = servers(prepare=prepare)
    assert server.invoke().status == 200
    model = server.base / "ml" / "model"
    found = sorted(str(path.relative_to(model)) for path in model.rglob("*"))
    assert found == ["byoa.json", "code", "code/packed.py", "weights.npy"]
    for path in [model, *model.rglob("*")]:
        path.chmod(0o755)


# --- stopping -------------------------------------------------------------------------------------


def test_sigterm_finishes_the_running_request_and_refuses_new_connections(servers, door):
    """HOST-03, CHK-08: exit code 0; nobody is let in to be cut off at the end."""
    server = servers(door)
    idle = server.raw()
    with ThreadPoolExecutor(2) as pool, idle:
        idle.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(65536).startswith(b"HTTP/1.1 200")
        slow = pool.submit(server.invoke, "914,0,0,0\n")
        time.sleep(0.4)  # it is being predicted now
        server.terminate()
        server.wait_for(lambda: refuses(server.port), 10)
        assert not slow.done()
        assert slow.result().status == 200
    assert server.process.wait(30) == 0


def test_sigterm_while_the_model_loads_ends_the_server(servers):
    """HOST-03."""
    server = servers(wait=False, model={"load_seconds": 60.0})
    server.wait_for(lambda: server.ping() == 503)
    server.terminate()
    assert server.process.wait(30) == 0


def test_sigterm_right_after_the_start_ends_the_server(servers):
    server = servers(wait=False)
    time.sleep(0.05)
    server.terminate()
    assert server.process.wait(30) in (0, -signal.SIGTERM)


def test_workers_end_when_the_master_is_killed(servers, door):
    server = servers(door)
    workers = server.workers()
    assert workers
    server.process.kill()
    server.process.wait(10)
    server.wait_for(lambda: not any(alive(pid) for pid in workers), 20)


# --- replacing ------------------------------------------------------------------------------------


def test_a_killed_worker_is_replaced(servers):
    server = servers()
    (worker,) = server.workers()
    os.kill(worker, signal.SIGKILL)
    server.wait_for(lambda: server.workers() not in ([], [worker]))
    server.ready()
    assert server.invoke().status == 200


def test_a_predict_that_crashes_its_worker_leaves_the_server_alive(servers):
    server = servers()
    with pytest.raises(OSError):
        server.invoke("909,0,0,0\n")
    server.ready()
    assert server.invoke().status == 200


# --- limits ---------------------------------------------------------------------------------------


def test_a_slow_prediction_is_answered_504_before_the_platform_cuts(servers, door):
    """HOST-31, TRAP-09, pain 17; pain 23 where the model never returns: /ping turns to 503."""
    server = servers(door, SAGEMAKER_MODEL_SERVER_TIMEOUT="1")
    reply = server.invoke("901,0,0,0\n")
    assert (reply.status, reply.json["code"]) == (504, "PREDICT_TIMEOUT")
    assert "batch transform" in reply.json["remedy"]
    server.wait_for(lambda: server.invoke().status == 200)
    assert server.invoke("912,0,0,0\n").status == 504
    server.wait_for(lambda: server.ping() == 503, 20)
    assert server.call("GET", "/ping").json["state"] == "stuck"
    server.terminate()
    assert server.process.wait(30) == 0


def test_requests_beyond_the_queue_are_answered_503_with_retry_after(servers, door):
    """HOST-36."""
    server = servers(door, BYOA_QUEUE_LIMIT="1")
    with ThreadPoolExecutor(6) as pool:
        replies = [
            each.result()
            for each in [pool.submit(server.invoke, "913,0,0,0\n") for _ in range(6)]
        ]
    statuses = sorted(reply.status for reply in replies)
    assert statuses[0] == 200 and statuses[-1] == 503
    full = next(reply for reply in replies if reply.status == 503)
    assert full.json["code"] == "QUEUE_FULL" and full.headers["retry-after"]


def test_a_refusal_for_a_full_queue_is_made_before_the_body_is_looked_at(servers, door):
    """HOST-36: whoever refuses a crowd reads nothing of what it sends, and says which it was."""
    server = servers(door, BYOA_QUEUE_LIMIT="1", BYOA_ACCESS_LOG="1", BYOA_WORKERS="1")
    with ThreadPoolExecutor(2) as pool:
        held = []
        for running, queued in ((1, 0), (2, 1)):
            held.append(pool.submit(server.invoke, "914,0,0,0\n"))
            server.wait_for(lambda now=(running + 1, queued): now == (  # with itself
                metrics(server)("byoa_requests_in_flight"), metrics(server)("byoa_queue_depth")
            ))
        refused = server.invoke("no,numbers\n")
        assert [each.result().status for each in held] == [200, 200]
    assert (refused.status, refused.json["code"]) == (503, "QUEUE_FULL")
    identity = refused.json["request_id"]
    assert refused.headers["x-request-id"] == identity
    server.wait_for(lambda: f'"request_id":"{identity}"' in server.log)
    assert server.invoke("no,numbers\n").status == 400


def test_large_bodies_beyond_the_queue_are_answered_503_too(servers, door):
    """HOST-36: they are decoded beside the loop, where they would otherwise pile up."""
    server = servers(door, BYOA_QUEUE_LIMIT="2")
    body = "913,0,0,0\n" * 20_000
    with ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(server.invoke, [body] * 12))
    assert {reply.status for reply in replies} == {200, 503}
    assert all(len(each.json["predictions"]) == 20_000 for each in replies if each.status == 200)
    full = next(reply for reply in replies if reply.status == 503)
    assert full.json["code"] == "QUEUE_FULL" and full.headers["retry-after"]


@pytest.mark.parametrize("door", ["express"])
def test_a_connection_whose_large_body_is_refused_unread_goes_on(servers, door):
    """HOST-36: what it sends is thrown away, and counted."""
    server = servers(door, BYOA_QUEUE_LIMIT="1")
    body = b"914,0,0,0\n" * 20_000
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
    with ThreadPoolExecutor(1) as pool, server.raw(60) as connection:
        held = pool.submit(server.invoke, body.decode())
        server.wait_for(lambda: metrics(server)("byoa_requests_in_flight") == 2)  # with itself
        sent = 0
        status = b""
        while status != b"503" and not held.done():
            connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            status, sent = status_of(connection), sent + 1
        assert status == b"503"
        connection.sendall(head + b"Content-Length: 8\r\n\r\n1,2,3,4\n")
        assert status_of(connection) == b"200"
        held.result()
    assert metrics(server)("byoa_request_bytes_total") == (sent + 1) * len(body) + 8


def metrics(server) -> Exposition:
    return Exposition(server.call("GET", "/metrics").body.decode())


def status_of(connection: socket.socket) -> bytes:
    """The status of the next answer, which is read whole."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(65536)
    head, _, rest = answer.partition(b"\r\n\r\n")
    left = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]) - len(rest)
    while left:
        left -= len(connection.recv(min(left, 65536)))
    return head.split(b" ", 2)[1]


# --- settings -------------------------------------------------------------------------------------


def test_the_server_listens_on_all_interfaces_at_the_bound_port_alone(server):
    """HOST-10, PIPE-03, CHK-10."""
    listening = {
        fields[1]
        for pid in [server.process.pid, *server.workers()]
        for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
        if (fields := line.split())[3] == "0A" and owns(pid, fields[9])
    }
    assert listening == {f"00000000:{server.port:04X}"}


def test_bad_settings_end_the_server_at_once_naming_every_variable(servers):
    server = servers(
        wait=False, BYOA_SERVER="nginx", SAGEMAKER_MODEL_SERVER_TIMEOUT="soon",
        SAGEMAKER_HANDLER="service:handle",
    )
    assert server.process.wait(30) == 1
    for word in ("BYOA_SERVER='nginx'", "SAGEMAKER_MODEL_SERVER_TIMEOUT='soon'",
                 "SAGEMAKER_HANDLER", "express or flask", "SETTING_INVALID"):
        assert word in server.log
    assert "Traceback" not in server.log


def test_a_default_accept_that_cannot_be_written_ends_the_server_at_once(servers):
    """ITK-03."""
    server = servers(wait=False, SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT="image/png")
    assert server.process.wait(30) == 1
    assert "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT='image/png'" in server.log


def test_the_toolkit_s_variables_are_the_server_s_settings(servers, door):
    """ITK-03: workers, seconds of an invocation, megabytes of a body; ports that it needs not."""
    server = servers(
        door, BYOA_WORKERS="", SAGEMAKER_MODEL_SERVER_WORKERS="2",
        SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS="1", SAGEMAKER_MAX_PAYLOAD_IN_MB="2",
        SAGEMAKER_SAFE_PORT_RANGE="20000-20010", SAGEMAKER_MULTI_MODEL="false",
    )
    assert len(server.workers()) == 2
    assert server.invoke("1,2,3,4\n" * 200_000, accept="text/csv").status == 200
    assert server.invoke("1,2,3,4\n" * 300_000).status == 413
    assert server.invoke("901,0,0,0\n").status == 504


def test_a_default_accept_is_used(servers):
    """ITK-03, ITK-04."""
    server = servers(SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT="text/csv")
    assert server.invoke(accept="*/*").body.strip() == b"30.0"


def test_a_port_in_use_ends_the_server_at_once(servers):
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = servers(wait=False, SAGEMAKER_BIND_TO_PORT=str(port))
        assert server.process.wait(30) == 1
    assert "PORT_UNAVAILABLE" in server.log and str(port) in server.log


def test_the_plan_is_printed_as_one_line_and_carried_out(server):
    (line,) = [each for each in server.log.splitlines() if each.startswith("byoa serve:")]
    assert f"port {server.port}" in line and "2 workers" in line
    assert len(server.workers()) == 2


def test_debug_puts_the_traceback_into_the_answer(servers):
    server = servers(BYOA_DEBUG="1")
    assert "scripted.py" in server.invoke("902,0,0,0\n").json["traceback"]


def test_the_algorithm_of_the_environment_wins_over_the_manifests(servers):
    def prepare(model: Path) -> None:
        manifest = json.loads((model / "byoa.json").read_text())
        manifest["algorithm"] = "no-such-algorithm"
        (model / "byoa.json").write_text(json.dumps(manifest))

    server = servers(prepare=prepare, BYOA_ALGORITHM="scripted:Scripted")
    assert server.invoke().status == 200


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def owns(pid: int, inode: str) -> bool:
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if os.readlink(descriptor) == f"socket:[{inode}]":
                return True
        except OSError:
            pass
    return False
