"""`docker run IMAGE serve` (CHK-06 … CHK-10, CHK-17)."""

from __future__ import annotations

import json
import threading

import pytest

READ_ONLY = ("model",)
SLOW, FAILING, WHO = b"901,0\n", b"902,0\n", b"903,0\n"

# A hundred requests at once, and /ping meanwhile, which gets the contract's 2 s (HOST-22).
CROWD = """
import http.client, json, threading
from concurrent.futures import ThreadPoolExecutor

def call(method, path, timeout, body=b""):
    connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=timeout)
    try:
        connection.request(method, path, body, {"Content-Type": "text/csv"})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except OSError as error:
        return repr(error)
    finally:
        connection.close()

done = threading.Event()
pings = []
def watch():
    while not done.is_set():
        pings.append(call("GET", "/ping", 2))
watcher = threading.Thread(target=watch)
with ThreadPoolExecutor(100) as pool:
    watcher.start()
    answers = list(pool.map(lambda _: call("POST", "/invocations", 60, b"904,0"), range(100)))
done.set()
watcher.join()
print(json.dumps([answers, sorted(set(pings), key=str)]))
"""


# --- what is answered ---


@pytest.mark.parametrize(("body", "content_type"), [
    (b"1,2\n3,4\n", "text/csv"),
    (b'{"instances":[[1,2],[3,4]]}', "application/json"),
    (b'{"features":[1,2]}\n{"features":[3,4]}\n', "application/jsonlines"),
])
def test_documented_content_types_are_answered_in_every_way(
    start, probe_model, probe_image, way, body, content_type
):
    """CHK-06, CHK-07, CHK-16, HOST-20, HOST-40"""
    box = start(probe_image, "serve", tree=probe_model, way=way, read_only=READ_ONLY).ready()
    answer = box.invoke(body, content_type)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert json.loads(answer.body) == {"predictions": [3.0, 7.0]}
    answer = box.invoke(body, content_type, accept="text/csv")
    assert answer.headers["content-type"].startswith("text/csv")
    assert [float(each) for each in answer.text.split()] == [3.0, 7.0]


def test_what_is_wrong_has_its_status_and_a_text(start, probe_model, probe_image):
    """CHK-06, HOST-33"""
    box = start(probe_image, "serve", tree=probe_model, read_only=READ_ONLY).ready()
    for answer, status, said in (
        (box.invoke(b"x", "text/x-unknown"), 415, "text/csv"),
        (box.invoke(b"1,2\n", accept="image/png"), 406, "application/json"),
        (box.invoke(b"1,x\n"), 400, "record 1, column 2"),
        (box.invoke(b"1,2,3\n"), 400, "record 1"),
        (box.invoke(FAILING), 500, "the eigenvalues have left"),
    ):
        assert answer.status == status and said in answer.text
    assert box.ping() == 200


def test_every_request_is_on_the_port_that_is_asked_for(start, probe_model, probe_image):
    """CHK-10, PIPE-03"""
    box = start(probe_image, "serve", tree=probe_model, port=9000,
                environment={"SAGEMAKER_BIND_TO_PORT": "9000"}).ready()
    assert box.invoke().status == 200
    assert box.call("GET", "/execution-parameters").status == 200
    listening = box.container.exec_run(
        ["python", "-c", "import socket; print(socket.socket().connect_ex(('127.0.0.1', 8080)))"]
    )
    assert listening.output.strip() == b"111"  # ECONNREFUSED


def test_many_requests_at_once_leave_ping_answered(start, probe_model, probe_image):
    """CHK-09, TRAP-08. Called from inside: a published port goes through a program of the
    engine's, which under load makes a connection wait for seconds."""
    box = start(probe_image, "serve", tree=probe_model).ready()
    code, output = box.container.exec_run(["python", "-c", CROWD])
    assert code == 0, output
    answers, pings = json.loads(output)
    assert answers == [200] * 100
    assert pings and set(pings) == {200}


@pytest.mark.parametrize("way", ["root", "all-at-once"], indirect=True)
def test_a_running_request_is_finished_after_sigterm(start, probe_model, probe_image, way):
    """CHK-08, HOST-03: the exit comes before the platform's SIGKILL after 30 s."""
    box = start(probe_image, "serve", tree=probe_model, way=way).ready()
    answers = []
    caller = threading.Thread(target=lambda: answers.append(box.invoke(SLOW)))
    caller.start()
    box.until(lambda: "predicting" in box.log)
    box.container.kill("SIGTERM")
    code = box.wait(30)
    caller.join()
    assert code == 0, box.log
    assert [(answer.status, answer.text) for answer in answers] == [
        (200, '{"predictions":[901.0]}')
    ]


# --- whom the workers are ---


def test_workers_of_a_root_start_are_nobody_special(start, probe_model, probe_image):
    """The master stays root; who answers requests may write neither the model nor the image."""
    box = start(probe_image, "serve", tree=probe_model, read_only=READ_ONLY).ready()
    uids = box.uids()
    assert uids.pop(1) == 0
    assert uids and set(uids.values()) == {1000}
    assert json.loads(box.invoke(WHO).body) == {"predictions": [1000]}
    assert "workers as byoa (uid 1000)" in box.log


@pytest.mark.parametrize(("options", "uid", "said"), [
    ({"environment": {"BYOA_USER": "root"}}, 0, "workers as root (uid 0)"),
    ({"cap_drop": ["ALL"]}, 0, "not byoa: this root has no capability to change users"),
    ({"user": "4711:4711"}, 4711, "workers as uid 4711"),
    ({"user": "1000:1000"}, 1000, "workers as byoa (uid 1000)"),
])
def test_other_workers_are_who_was_asked_for(
    start, probe_model, probe_image, options, uid, said
):
    box = start(probe_image, "serve", tree=probe_model, **options).ready()
    assert set(box.uids().values()) == {uid}
    assert json.loads(box.invoke(WHO).body) == {"predictions": [uid]}
    assert said in box.log


def test_a_user_that_the_image_lacks_is_refused(start, probe_model, probe_image):
    box = start(probe_image, "serve", tree=probe_model, environment={"BYOA_USER": "alice"})
    assert box.wait() == 1
    assert "BYOA_USER='alice': there is no such user here" in box.log


def test_a_model_that_only_root_reads_is_served_as_root_or_named_with_the_cure(
    start, probe_model, probe_image
):
    """HOST-40: what the service extracts is mode 0644; an archive of 0600 files may be seen."""
    private = probe_model.layout.model / "probe.json"
    private.chmod(0o600)
    as_root = start(probe_image, "serve", tree=probe_model).ready()
    assert as_root.invoke().status == 200
    assert "workers as root (uid 0), not byoa: /opt/ml/model/probe.json is of uid" in as_root.log
    quick = {"BYOA_LOAD_FAILURE_SECONDS": "0"}
    box = start(probe_image, "serve", tree=probe_model, user="4711:4711", environment=quick)
    assert box.wait() == 1
    assert "/opt/ml/model/probe.json is of uid " in box.log and "mode 0600" in box.log
    assert "[MODEL_FILE_UNREADABLE]" in box.log and "as root" in box.log


def test_a_model_s_own_code_is_imported_from_a_read_only_directory(
    start, probe_model, probe_image
):
    """CHK-07, TRAP-42: no byte code is written beside it."""
    code = probe_model.layout.model / "code"
    code.mkdir()
    (code / "mine.py").write_text(
        "from probe import Probe\nclass Mine(Probe):\n"
        "    def predict(self, model, records):\n        return [7] * len(records)\n"
    )
    box = start(probe_image, "serve", tree=probe_model, read_only=READ_ONLY,
                environment={"BYOA_ALGORITHM": "mine:Mine"}).ready()
    assert json.loads(box.invoke().body) == {"predictions": [7]}


# --- what keeps a server from starting ---


def test_without_a_model_the_server_says_what_is_missing(start, tree, torch_free_image):
    box = start(torch_free_image, "serve", tree=tree,
                environment={"BYOA_LOAD_FAILURE_SECONDS": "0"})
    assert box.wait() == 1
    assert "no model to serve: /opt/ml/model is empty" in box.log


def test_a_cuda_image_without_a_device_says_so_and_serves(start, tree, cuda_image):
    """CHK-17"""
    tree.job(b"0,1,2\n1,5,6\n0,1,3\n1,6,6\n")
    trained = start(cuda_image, "train", tree=tree,
                    environment={"BYOA_ALGORITHM": "nearest-centroid"})
    assert trained.wait() == 0, trained.log
    box = start(cuda_image, "serve", tree=tree, read_only=READ_ONLY).ready()
    assert box.invoke(b"5,6\n").status == 200
    lines = [each for each in box.log.splitlines() if "no GPU: " in each]
    assert len(lines) == 1 and "device cpu" in box.log
