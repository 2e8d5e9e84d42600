"""Weights that several workers share: mapped from the model's file, or loaded before the fork."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byoa.container import account
from byoa.container.account import Account
from byoa.container.errors import ContractError
from byoa.container.hardware import Hardware, resident_bytes, shared_bytes
from byoa.serve import preloading
from byoa.serve.master import Board, Crew
from byoa.serve.plan import make_plan
from byoa.serve.preloading import preload
from byoa.serve.server import Server
from byoa.serve.settings import read

MEGABYTE = 1 << 20
WEIGHTS = 128 * MEGABYTE
SIDE = 4096  # squared, 8 bytes each: WEIGHTS
ALGORITHM = '''
import threading, time
import numpy as np
from byoa.algorithms import Algorithm

class Product(Algorithm):
    def train(self, run): raise AssertionError
    def load(self, model_dir, device):
        with (model_dir.parent / "loads").open("a") as log:
            log.write("load\\n")
        what = (model_dir / "what").read_text() if (model_dir / "what").is_file() else ""
        if what == "thread":
            threading.Thread(target=time.sleep, args=(60,), daemon=True, name="feeder").start()
        if what == "slow":
            time.sleep(60)
        if what == "fail":
            raise RuntimeError("the weights are of another moon")
        return np.load(model_dir / "weights.npy")
    def predict(self, model, records):
        return np.full(len(records), model.sum())
'''
SCRIPT = '''
import os
def model_fn(model_dir): return os.getpid()
def input_fn(body, content_type): return body
def predict_fn(data, model): return f"{model} {os.getpid()}"
def output_fn(prediction, accept): return prediction
'''
CPU = Hardware(2.0, "affinity", 8 << 30, "machine")


def prepare(what: str = "", side: int = SIDE) -> Any:
    def write(model_dir: Path) -> None:
        (model_dir / "code").mkdir()
        (model_dir / "code" / "product.py").write_text(ALGORITHM)
        (model_dir / "what").write_text(what)
        np.save(model_dir / "weights.npy", np.ones((side, side)))
        (model_dir / "byoa.json").write_text(json.dumps({
            "byoa": 1, "algorithm": "product:Product", "hyperparameters": {},
            "input": {"features": 2, "sample": [[1.0, 2.0]]},
        }))

    return write


def loads(server: Any) -> int:
    return (server.base / "ml" / "loads").read_text().count("load")


def private_bytes(pid: int) -> int:
    """What a process has in memory that it shares with no other."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_"))


def mapped(pid: int, name: str) -> dict[str, int]:
    """Bytes of the mappings of a file, by smaps' words for them."""
    found: dict[str, int] = {}
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            inside = line.endswith(name)
        elif inside and len(words) == 3:
            found[words[0][:-1]] = found.get(words[0][:-1], 0) + (int(words[1]) << 10)
    return found


@pytest.mark.parametrize("door", ["express", "flask"])
def test_workers_share_a_model_that_was_loaded_before_the_fork(servers, door):
    server = servers(door, prepare=prepare(), BYOA_PRELOAD="1", BYOA_WORKERS="3")
    assert len(server.workers()) == 3
    # All of them have read all weights, to predict on the manifest's sample.
    assert server.invoke("1,2\n").json == {"predictions": [SIDE * SIDE]}
    for pid in server.workers():
        assert private_bytes(pid) < WEIGHTS - 16 * MEGABYTE
    assert loads(server) == 1
    assert "loaded once for all" in server.log


def test_without_it_each_worker_has_the_weights_for_itself(servers):
    server = servers(prepare=prepare(), BYOA_WORKERS="2")
    assert all(private_bytes(pid) > WEIGHTS for pid in server.workers())
    assert loads(server) == 2


def test_a_worker_that_is_replaced_has_the_model_at_once(servers):
    server = servers(prepare=prepare(side=8), BYOA_PRELOAD="1", BYOA_WORKERS="2")
    before = set(server.workers())
    os.kill(min(before), signal.SIGKILL)
    server.wait_for(lambda: len(set(server.workers()) - before) == 1)
    server.wait_for(lambda: server.ping() == 200)
    assert server.invoke("1,2\n").status == 200
    assert loads(server) == 1


def test_a_script_s_model_is_loaded_before_the_fork_too(servers):
    def write(model_dir: Path) -> None:
        (model_dir / "byoa.json").unlink()
        (model_dir / "code").mkdir()
        (model_dir / "code" / "inference.py").write_text(SCRIPT)

    server = servers(prepare=write, BYOA_PRELOAD="1", BYOA_WORKERS="2")
    loaded_by, answered_by = map(int, server.invoke("1,2\n").body.split())
    assert loaded_by == server.process.pid
    assert answered_by in server.workers()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("thread", "load has left 1 thread behind: "),
        ("fail", "RuntimeError: the weights are of another moon"),
        ("slow", "the model is not loaded after 1 s"),
    ],
)
def test_a_model_that_cannot_be_loaded_before_the_fork_ends_the_server(servers, what, said):
    # HOST-25
    server = servers(
        prepare=prepare(what, 8), wait=False, BYOA_PRELOAD="1", SAGEMAKER_STARTUP_TIMEOUT=(
            "1" if what == "slow" else "60"
        ),
    )
    assert server.process.wait(60) == 1
    assert said in server.log


def test_a_gpu_is_not_forked():
    with pytest.raises(ContractError, match="BYOA_PRELOAD is set, and the device is cuda"):
        preload(lambda: None, "cuda", 60)


def test_many_models_are_not_loaded_before_the_fork():
    with pytest.raises(ContractError, match="BYOA_PRELOAD: models come and go"):
        read({"BYOA_PRELOAD": "1", "SAGEMAKER_MULTI_MODEL": "true"})


def test_the_author_s_code_runs_as_the_workers_user_before_the_fork_too(
    monkeypatch, tmp_path, model_directory
):
    """HOST-40: never as root where the image has a user."""
    order = []
    user = Account("byoa", 1000, 1000, "/home/byoa")
    monkeypatch.setattr(account, "own", lambda: Account("root", 0, 0, "/root"))
    monkeypatch.setattr(account, "find", {"byoa": user}.get)
    monkeypatch.setattr(account, "obstacle", lambda wanted: None)
    monkeypatch.setattr(account, "closed_to", lambda wanted, directory: None)
    monkeypatch.setattr(account, "become", lambda given: order.append(given))
    model_directory()
    settings = read({"BYOA_PRELOAD": "1"})
    server = Server(settings, make_plan(settings, CPU, {"SAGEMAKER_BASE_DIR": str(tmp_path)}))
    monkeypatch.setattr(server, "_loader", lambda: lambda directory: order.append("load"))
    monkeypatch.setattr(preloading, "preload", lambda load, device, seconds: load())
    server._preload()
    assert order == [user, "load"]
    assert server.plan.user is None


def test_the_built_in_network_is_mapped_from_its_file(servers):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    from byoa.algorithms.mlp_network import Network, Shape

    shape = Shape(64, [4096, 2048], "relu", [0, 1])
    network = Network(shape)

    def write(model_dir: Path) -> None:
        save_file(dict(network.state_dict()), model_dir / "model.safetensors")
        (model_dir / "model.json").write_text(json.dumps(asdict(shape)))
        (model_dir / "byoa.json").write_text(json.dumps({
            "byoa": 1, "algorithm": "mlp-classifier", "hyperparameters": {},
            "input": {"features": 64, "sample": [[1.0] * 64]},
        }))

    server = servers(prepare=write, BYOA_WORKERS="2")
    size = sum(each.nbytes for each in network.state_dict().values())
    found = [mapped(pid, "/model.safetensors") for pid in server.workers()]
    for each in found:
        assert each["Rss"] >= size
        assert each["Anonymous"] == 0  # nothing of it was copied
    assert sum(each["Pss"] for each in found) < 1.5 * size
    records = np.linspace(-1, 1, 128, dtype=np.float32).reshape(2, 64)
    with torch.inference_mode():
        expected = network.eval()(torch.from_numpy(records)).softmax(dim=1).numpy()
    body = "".join(",".join(map(str, row)) + "\n" for row in records)
    scores = [each["score"] for each in server.invoke(body).json["predictions"]]
    assert np.allclose(scores, expected, atol=1e-5)


# --- how many workers fit -------------------------------------------------------------------------


def test_what_is_mapped_counts_as_shared(tmp_path):
    np.save(tmp_path / "weights.npy", np.ones((2048, 2048)))
    os.sync()  # until then its pages count as dirty
    before = shared_bytes()
    weights = np.load(tmp_path / "weights.npy", mmap_mode="r")
    assert weights.sum() == 2048 * 2048
    assert shared_bytes() - before > 24 * MEGABYTE
    assert shared_bytes() < resident_bytes() * 1.1


def test_what_workers_share_is_counted_once(tmp_path):
    """TRAP-24."""
    gib = 1 << 30
    model = tmp_path / "model"
    model.mkdir()
    with (model / "weights").open("wb") as file:
        file.truncate(gib)
    found = Hardware(4.0, "affinity", 4 * gib, "machine")
    plan = make_plan(read({}), found, {"SAGEMAKER_BASE_DIR": str(tmp_path)})
    board, said = Board(4), []
    crew = Crew(plan, board, said.append)
    assert crew.wanted() == 1
    board.set_ready(0, int(1.5 * gib), gib)
    assert crew.wanted() == 4
    assert "1.61 GB with the model, 1.07 GB of it shared: 4 of 4" in said[0]
