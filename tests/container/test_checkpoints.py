"""Checkpoints: atomic, verified, the last and the best kept (TRAIN-170 … TRAIN-174, CHK-44)."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from byoa.container.checkpoints import Checkpoints
from byoa.container.errors import AlgorithmError


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "checkpoints"


@pytest.fixture
def checkpoints(directory):
    return Checkpoints(directory)


def steps(directory, host="algo-1"):
    return sorted(
        int(path.name.rpartition("-")[2]) for path in directory.glob(f"{host}-step-????????")
    )


def test_what_is_saved_is_read_back(checkpoints):
    saved = checkpoints.save({"weights": b"\0\1", "optimizer": b""}, step=3, metric=0.5)
    found = checkpoints.latest()
    assert found == saved
    assert (found.step, found.metric) == (3, 0.5)
    assert (found.path / "weights").read_bytes() == b"\0\1"
    assert (found.path / "optimizer").read_bytes() == b""


def test_a_function_may_write_files_and_directories(checkpoints):
    def write(path):
        (path / "part").mkdir()
        (path / "part" / "0.bin").write_bytes(b"x" * 100)

    checkpoints.save(write, step=1)
    assert (checkpoints.latest().path / "part" / "0.bin").read_bytes() == b"x" * 100


def test_each_save_prints_one_line_with_size_and_time(checkpoints, capsys):
    checkpoints.save({"weights": b"x" * 41_000_000}, step=1200)
    assert re.fullmatch(
        r"checkpoint step 1200 → 41 MB, \d+\.\d s\n", capsys.readouterr().out
    )


def test_the_index_holds_step_metric_and_the_hash_of_every_file(checkpoints):
    path = checkpoints.save({"a": b"abc"}, step=7, metric=1.5).path
    index = json.loads((path / "checkpoint.json").read_text())
    assert (index["step"], index["metric"], index["host"]) == (7, 1.5, "algo-1")
    assert index["files"] == {"a": {
        "size": 3, "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    }}


def test_an_empty_directory_is_a_fresh_start(checkpoints, directory):
    """TRAIN-174"""
    assert checkpoints.latest() is None
    directory.mkdir()
    assert checkpoints.latest() is None


def test_the_newest_are_kept_and_the_best(checkpoints, directory):
    checkpoints.keep = 2
    for step, loss in enumerate([0.9, 0.1, 0.8, 0.7, 0.6], 1):
        checkpoints.save({"a": b"1"}, step, metric=loss)
    assert steps(directory) == [2, 4, 5]
    assert checkpoints.latest().step == 5
    assert checkpoints.best_one().step == 2


def test_the_best_may_be_the_greatest(checkpoints, directory):
    checkpoints.keep, checkpoints.best = 1, "max"
    for step, accuracy in enumerate([0.2, 0.9, float("nan"), 0.5], 1):
        checkpoints.save({"a": b"1"}, step, metric=accuracy)
    assert steps(directory) == [2, 4]
    assert checkpoints.best_one().step == 2


def test_without_metrics_there_is_no_best(checkpoints, directory):
    checkpoints.keep = 1
    checkpoints.save({"a": b"1"}, 1)
    checkpoints.save({"a": b"1"}, 2)
    assert steps(directory) == [2]
    assert checkpoints.best_one() is None


def test_markers_and_parts_of_the_sync_are_passed_over(checkpoints, directory):
    """TRAIN-173, TRAP-17, CHK-44"""
    path = checkpoints.save({"a": b"1"}, 1).path
    (directory / f"{path.name}.sagemaker-uploaded").write_text("")
    (path / "a.sagemaker-uploading").write_text("")
    (directory / "algo-1-step-00000009.part.sagemaker-ignore").mkdir()
    (directory / "algo-1-step-00000008").write_text("a file")
    (directory / "somebody-else.pt").write_text("x")
    assert checkpoints.latest().step == 1


@pytest.mark.parametrize(("harm", "said"), [
    (lambda path: (path / "a").write_bytes(b"2"), "a is not what was saved"),
    (lambda path: (path / "a").write_bytes(b""), "a has 0 bytes, saved were 1"),
    (lambda path: (path / "a").unlink(), "a is missing"),
    (lambda path: (path / "checkpoint.json").unlink(), "no whole checkpoint.json"),
    (lambda path: (path / "checkpoint.json").write_text('{"fi'), "no whole checkpoint.json"),
    (lambda path: (path / "checkpoint.json").write_text("[]"), "no whole checkpoint.json"),
])
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(checkpoints, capsys, harm, said):
    checkpoints.save({"a": b"1"}, 1)
    harm(checkpoints.save({"a": b"1"}, 2).path)
    capsys.readouterr()
    assert checkpoints.latest().step == 1
    output = capsys.readouterr().out
    assert "algo-1-step-00000002" in output and said in output


def test_every_host_writes_under_its_own_name_and_prefers_it(directory):
    """TRAIN-172"""
    first, second = Checkpoints(directory, host="algo-1"), Checkpoints(directory, host="algo-2")
    first.save({"a": b"one"}, 1)
    second.save({"a": b"two"}, 1)
    first.save({"a": b"one"}, 2)
    assert (second.latest().path / "a").read_bytes() == b"two"
    assert (steps(directory), steps(directory, "algo-2")) == ([1, 2], [1])


def test_a_host_without_a_checkpoint_takes_the_first_host_s_newest(directory):
    """TRAIN-170: every host finds all objects of the prefix."""
    first = Checkpoints(directory, host="algo-1")
    first.save({"a": b"1"}, 1)
    first.save({"a": b"2"}, 2)
    Checkpoints(directory, host="algo-10").save({"a": b"3"}, 3)
    found = Checkpoints(directory, host="algo-2").latest()
    assert (found.step, (found.path / "a").read_bytes()) == (2, b"2")


def test_saving_a_step_again_replaces_it(checkpoints, directory):
    checkpoints.save({"a": b"old", "b": b"gone"}, 1)
    checkpoints.save({"a": b"new"}, 1)
    assert sorted(p.name for p in checkpoints.latest().path.iterdir()) == ["a", "checkpoint.json"]
    assert [path.name for path in directory.iterdir()] == ["algo-1-step-00000001"]


def test_a_save_that_fails_leaves_the_earlier_ones_and_nothing_else(checkpoints, directory):
    checkpoints.save({"a": b"1"}, 1)

    def broken(path):
        (path / "half").write_bytes(b"x")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(broken, 2)
    assert [path.name for path in directory.iterdir()] == ["algo-1-step-00000001"]


def test_a_kill_in_the_middle_of_a_save_leaves_the_earlier_one(checkpoints, directory):
    """TRAIN-173, with a real SIGKILL."""
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from byoa.container.checkpoints import Checkpoints\n"
        "def half(path):\n"
        "    (path / 'a').write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "checkpoints = Checkpoints(Path(sys.argv[1]))\n"
        "checkpoints.save({'a': b'whole'}, 1)\n"
        "checkpoints.save(half, 2)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(directory)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    left = [path.name for path in directory.iterdir() if path.name != "algo-1-step-00000001"]
    assert [name.endswith(".sagemaker-ignore") for name in left] == [True]
    assert (checkpoints.latest().path / "a").read_bytes() == b"whole"
    checkpoints.save({"a": b"next"}, 2)
    assert sorted(os.listdir(directory)) == ["algo-1-step-00000001", "algo-1-step-00000002"]


def test_without_a_checkpoint_config_nothing_is_saved_and_it_is_said_once(capsys):
    checkpoints = Checkpoints(None)
    assert not checkpoints.enabled
    assert checkpoints.save({"a": b"1"}, 1) is None
    assert checkpoints.save({"a": b"1"}, 2) is None
    assert checkpoints.latest() is None
    assert capsys.readouterr().out == "no CheckpointConfig: checkpoints are off\n"


@pytest.mark.parametrize(("keep", "best", "step"), [(0, "min", 1), (1, "least", 1), (1, "min", -1)])
def test_options_that_make_no_sense_are_refused(directory, keep, best, step):
    checkpoints = Checkpoints(directory, keep=keep, best=best)
    with pytest.raises(AlgorithmError, match="CHECKPOINT_OPTION_INVALID"):
        checkpoints.save({"a": b"1"}, step)


def test_a_checkpoint_without_files_is_refused(checkpoints, directory):
    with pytest.raises(AlgorithmError, match="CHECKPOINT_EMPTY"):
        checkpoints.save(lambda path: None, 1)
    assert list(directory.iterdir()) == []
