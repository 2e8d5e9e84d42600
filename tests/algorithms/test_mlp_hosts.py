"""mlp-classifier on several hosts, each a process with a tree of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byoa.container.contract import (
    ChannelConfig,
    CheckpointConfig,
    InputDataConfig,
    Layout,
    ResourceConfig,
    write_hyperparameters,
)
from tests.loopback import INTERFACE, addresses

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 on its loopback"
)
LIMIT = 120.0
# Without chance the work is the same however many hosts do it.
PLAIN = {"dropout": "0", "input_noise": "0", "mini_batch_size": "64", "hidden_units": "[32]"}


class Hosts:
    """The trees of a job's hosts."""

    def __init__(self, root: Path, count: int) -> None:
        self.names = addresses(count) if count > 1 else ("algo-1",)
        self.layouts = [Layout(root / name) for name in self.names]
        for name, layout in zip(self.names, self.layouts, strict=True):
            layout.create()
            ResourceConfig(
                name, self.names,
                network_interface_name=INTERFACE if count > 1 else "eth0",
            ).write(layout)

    def channels(self, data: dict[str, Any], *, divided: bool = False) -> Hosts:
        """Each host all records; or where `divided`, those of its own, of which some have more."""
        distribution = "ShardedByS3Key" if divided else "FullyReplicated"
        for rank, layout in enumerate(self.layouts):
            for name, (records, labels) in data.items():
                directory = layout.channel(name)
                directory.mkdir(parents=True, exist_ok=True)
                table = np.column_stack([labels, records])
                if divided:
                    cuts = [0, len(table) // 3, *[len(table)] * (len(self.names) - 1)]
                    table = table[cuts[rank] : cuts[rank + 1]]
                if len(table):
                    np.savetxt(directory / "part-0.csv", table, fmt="%g", delimiter=",")
            InputDataConfig({
                name: ChannelConfig(content_type="text/csv", distribution=distribution)
                for name in data
            }).write(layout)
        return self

    def checkpoints(self) -> Hosts:
        for layout in self.layouts:
            CheckpointConfig("s3://bucket/checkpoints").write(layout)
        return self

    def start(self, **values: str) -> list[subprocess.Popen[str]]:
        started = []
        for layout in self.layouts:
            write_hyperparameters(layout, {**PLAIN, **values})
            environ = {
                "PATH": os.environ["PATH"], "SAGEMAKER_BASE_DIR": str(layout.root),
                "BYOA_ALGORITHM": "mlp-classifier", "OMP_NUM_THREADS": "1",
            }
            started.append(subprocess.Popen(
                [sys.executable, "-m", "byoa.container", "train"], env=environ, cwd=layout.root,
                text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            ))
        return started

    def finish(self, processes: list[subprocess.Popen[str]]) -> list[str]:
        outputs = [""] * len(processes)

        def take(index: int) -> None:
            with processes[index] as process:
                try:
                    outputs[index], _ = process.communicate(timeout=LIMIT)
                except subprocess.TimeoutExpired:
                    process.kill()
                    outputs[index] = f"still running: {process.communicate()[0]}"

        threads = [threading.Thread(target=take, args=(i,)) for i in range(len(processes))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return outputs

    def run(self, **values: str) -> list[str]:
        processes = self.start(**values)
        outputs = self.finish(processes)
        assert [process.returncode for process in processes] == [0] * len(processes), outputs
        return outputs

    def metric(self, name: str, rank: int = 0) -> list[float]:
        path = self.layouts[rank].metrics / "metrics.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [line["value"] for line in lines if line["name"] == name]

    def weights(self) -> dict[str, Any]:
        import safetensors.numpy

        return safetensors.numpy.load_file(self.layouts[0].model / "model.safetensors")


@pytest.fixture
def data(digits: Any) -> dict[str, Any]:
    return {
        "train": (digits.train[0][:600], digits.train[1][:600]),
        "validation": (digits.validation[0][:150], digits.validation[1][:150]),
    }


@pytest.mark.parametrize("count", [2, 3])
def test_several_hosts_reach_the_loss_of_one(tmp_path: Path, data: Any, count: int) -> None:
    """DIST-10: the same records a step, so the same steps but for the order of additions."""
    one = Hosts(tmp_path / "one", 1).channels(data)
    one.run(epochs="4")
    several = Hosts(tmp_path / "several", count).channels(data)
    outputs = several.run(epochs="4")
    for name in ("train:loss", "validation:loss", "validation:accuracy"):
        assert several.metric(name) == pytest.approx(one.metric(name), rel=1e-3), name
    for name, tensor in one.weights().items():
        np.testing.assert_allclose(several.weights()[name], tensor, atol=2e-3)
    assert f"process group: {count} processes by gloo over {INTERFACE}" in outputs[0]


def test_only_the_first_host_prints_metrics_and_saves(tmp_path: Path, data: Any) -> None:
    """TRAIN-132, TRAIN-194, TRAP-22"""
    hosts = Hosts(tmp_path, 2).channels(data).checkpoints()
    first, second = hosts.run(epochs="1")
    assert "train:loss=" in first and "validation:loss=" in first
    assert "train:loss=" not in second and "validation:loss=" not in second
    assert {path.name for path in hosts.layouts[0].model.iterdir()} == {
        "byoa.json", "model.json", "model.safetensors",
    }
    assert not list(hosts.layouts[1].model.iterdir())
    assert not hosts.layouts[1].checkpoints.exists() or not list(
        hosts.layouts[1].checkpoints.iterdir()
    )


def test_divided_data_is_normalized_and_learned_as_a_whole(tmp_path: Path, data: Any) -> None:
    """TRAIN-100: shares of unequal size, and one of none."""
    one = Hosts(tmp_path / "one", 1).channels(data)
    one.run(epochs="6")
    divided = Hosts(tmp_path / "divided", 3).channels(data, divided=True)
    divided.run(epochs="6")
    for name in ("mean", "std"):
        np.testing.assert_allclose(divided.weights()[name], one.weights()[name], rtol=1e-5)
    accuracy = one.metric("validation:accuracy")[-1]
    assert divided.metric("validation:accuracy")[-1] == pytest.approx(accuracy, abs=0.08)
    assert divided.metric("train:loss")[-1] == pytest.approx(one.metric("train:loss")[-1], rel=0.1)


def test_classes_of_which_each_host_has_one_are_those_of_all(tmp_path: Path) -> None:
    lot = np.random.default_rng(0)
    labels = np.repeat([3, 7, 7], 60)  # cut after a third
    records = lot.normal(size=(180, 5)) + labels[:, None]
    hosts = Hosts(tmp_path, 2).channels({"train": (records, labels)}, divided=True)
    hosts.run(epochs="2")
    description = json.loads((hosts.layouts[0].model / "model.json").read_text())
    assert description["labels"] == [3, 7]


def test_hosts_with_other_data_are_told_so(tmp_path: Path, data: Any) -> None:
    hosts = Hosts(tmp_path, 2).channels(data)
    path = hosts.layouts[1].channel("train") / "part-0.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    processes = hosts.start(epochs="1")
    hosts.finish(processes)
    assert [process.returncode for process in processes] == [1, 1]
    assert "600 of 64 features, 599 of 64 features" in hosts.layouts[0].failure.read_text()


def test_a_stop_of_one_host_ends_all_at_the_same_step(tmp_path: Path, data: Any) -> None:
    """TRAIN-151: no host waits for one that has stopped; the model is saved."""
    hosts = Hosts(tmp_path, 2).channels(data)
    processes = hosts.start(epochs="100000", early_stopping_patience="100000")
    for line in processes[0].stdout or ():
        if line.startswith("train:loss"):
            break
    processes[1].send_signal(signal.SIGTERM)
    outputs = hosts.finish(processes)
    assert [process.returncode for process in processes] == [0, 0], outputs
    for output in outputs:
        assert "stopped in epoch " in output
    assert hosts.weights()


def test_a_training_on_several_hosts_is_resumed_as_if_it_had_not_ended(
    tmp_path: Path, data: Any
) -> None:
    """TRAIN-172, TRAIN-174: from the leader's checkpoint, which the others need not have."""
    values = {"dropout": "0.2", "input_noise": "0.2"}
    whole = Hosts(tmp_path / "whole", 2).channels(data).checkpoints()
    whole.run(epochs="4", **values)
    parts = Hosts(tmp_path / "parts", 2).channels(data).checkpoints()
    parts.run(epochs="4", **values)
    newest = parts.layouts[0].checkpoints
    for path in sorted(newest.iterdir()):  # the last epoch is lost
        if path.name.endswith("-step-00000004"):
            shutil.rmtree(path)
    outputs = parts.run(epochs="4", **values)
    for output in outputs:
        assert "resumes after epoch 3" in output
    assert parts.metric("train:loss")[-1] == pytest.approx(whole.metric("train:loss")[-1], rel=1e-4)


def test_a_host_that_is_killed_ends_the_others_who_name_it(tmp_path: Path, data: Any) -> None:
    """TRAIN-140, TRAP-16: at once, not after a time-out."""
    hosts = Hosts(tmp_path, 3).channels(data)
    processes = hosts.start(epochs="100000", early_stopping_patience="100000")
    for line in processes[0].stdout or ():
        if line.startswith("train:loss"):
            break
    processes[1].send_signal(signal.SIGKILL)
    for process in (processes[0], processes[2]):
        for line in process.stdout or ():
            if "to be stopped with the job" in line:
                break
        process.send_signal(signal.SIGTERM)
    hosts.finish(processes)
    assert [process.returncode for process in processes] == [1, -9, 1]
    for rank in (0, 2):
        assert hosts.layouts[rank].failure.read_text().startswith(
            f"{hosts.names[1]} ended without a word"
        )


def test_a_wrong_label_on_one_host_is_the_reason_on_all(tmp_path: Path, data: Any) -> None:
    hosts = Hosts(tmp_path, 2).channels(data)
    path = hosts.layouts[1].channel("train") / "part-0.csv"
    path.write_text("x" + path.read_text())
    processes = hosts.start(epochs="1")
    for line in processes[0].stdout or ():
        if "to be stopped with the job" in line:
            break
    processes[0].send_signal(signal.SIGTERM)
    hosts.finish(processes)
    own, others = (hosts.layouts[rank].failure.read_text() for rank in (1, 0))
    assert own.startswith("train/part-0.csv record 1")
    assert others.startswith(f"{hosts.names[1]} has failed: train/part-0.csv record 1")
