"""Warm pools: the record as on the service, and in process mode an interpreter that is kept ready
(TRAIN-211 … TRAIN-214)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from byoa.local.errors import ResourceInUse, ValidationException

RESOURCES = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}


def keeping(seconds: int = 300, **resources: Any) -> dict[str, Any]:
    return {"ResourceConfig": {**RESOURCES, "KeepAlivePeriodInSeconds": seconds, **resources}}


def pool(laboratory: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = laboratory.describe(name)["WarmPoolStatus"]
    return found


def until(look: Callable[[], Any]) -> None:
    end = time.monotonic() + 30
    while not look():
        assert time.monotonic() < end
        time.sleep(0.02)


# --- the record -----------------------------------------------------------------------------------


@pytest.mark.both_runners
def test_a_pool_is_in_use_then_available_then_reused_by_a_job_like_its_own(
    laboratory: Any, training_request: Any, job: Any
) -> None:
    """TRAIN-211, TRAIN-212, TRAIN-213."""
    waiting = laboratory.program(
        "print('ready', flush=True)\nwhile not (ml / 'input/go').exists(): time.sleep(0.02)"
    )
    laboratory.call("CreateTrainingJob", **training_request(
        "first", AlgorithmSpecification=waiting, **keeping()
    ))
    laboratory.until_printed("first", "ready")
    assert pool(laboratory, "first") == {"Status": "InUse"}
    (laboratory.ml("first") / "input/go").touch()
    laboratory.wait("first")
    found = pool(laboratory, "first")
    assert found["Status"] == "Available"
    assert found["ResourceRetainedBillableTimeInSeconds"] >= 0
    listed = laboratory.call("ListTrainingJobs", WarmPoolStatusEquals="Available")
    (entry,) = listed["TrainingJobSummaries"]
    assert (entry["TrainingJobName"], entry["WarmPoolStatus"]["Status"]) == ("first", "Available")

    job("without", "pass")  # asks for none, and takes none
    job("second", "pass", **keeping())
    assert "WarmPoolStatus" not in laboratory.describe("without")
    assert pool(laboratory, "first")["Status"] == "Reused"
    assert pool(laboratory, "first")["ReusedByJob"] == "second"
    assert pool(laboratory, "second")["Status"] == "Available"


@pytest.mark.parametrize("other", [
    {"RoleArn": "arn:aws:iam::123456789012:role/others"},
    keeping(InstanceType="ml.m5.xlarge"),
    keeping(InstanceCount=2),
    keeping(VolumeSizeInGB=2),
    keeping(VolumeKmsKeyId="key"),
    {"VpcConfig": {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}},
    {"EnableInterContainerTrafficEncryption": True},
    {"EnableNetworkIsolation": True},
    {"TrainingJobName": "other"},
], ids=lambda members: "-".join(members))
def test_a_pool_is_taken_by_no_job_that_differs(
    new_laboratory: Any, training_request: Any, other: dict[str, Any]
) -> None:
    """TRAIN-212: in any of eight members; another name is no difference."""
    laboratory = new_laboratory(sandbox="auto")
    request = training_request(
        "job", AlgorithmSpecification=laboratory.program("pass"), **keeping()
    )
    laboratory.call("CreateTrainingJob", **request)
    laboratory.wait("job")
    again = {**request, "TrainingJobName": "other", **other}
    laboratory.call("CreateTrainingJob", **again)
    assert laboratory.wait("other")["TrainingJobStatus"] == "Completed"

    expected = "Reused" if other == {"TrainingJobName": "other"} else "Available"
    assert pool(laboratory, "job")["Status"] == expected


def test_a_pool_ends_with_its_period(laboratory: Any, job: Any) -> None:
    job("short", "pass", **keeping(1))
    until(lambda: pool(laboratory, "short")["Status"] == "Terminated")

    assert pool(laboratory, "short")["ResourceRetainedBillableTimeInSeconds"] == 1


def test_the_algorithms_failure_and_a_stop_leave_a_pool_and_the_platforms_leaves_none(
    laboratory: Any, training_request: Any, job: Any
) -> None:
    """TRAIN-211."""
    job("failed", "sys.exit(1)", **keeping())
    assert pool(laboratory, "failed")["Status"] == "Available"
    for name in ("stopped", "lost"):
        laboratory.call("CreateTrainingJob", **training_request(
            name, AlgorithmSpecification=laboratory.program(
                "print('ready', flush=True)\ntime.sleep(60)"), **keeping(),
        ))
        laboratory.until_printed(name, "ready")
    laboratory.call("StopTrainingJob", TrainingJobName="stopped")
    laboratory.training.interrupt(laboratory.caller, "lost", {"fault": True})
    for name, expected in (("stopped", "Available"), ("lost", "Terminated")):
        laboratory.wait(name)
        assert pool(laboratory, name)["Status"] == expected


def test_an_update_changes_the_period_or_ends_the_pool(
    laboratory: Any, training_request: Any, job: Any
) -> None:
    """TRAIN-213, TRAIN-218."""

    def update(name: str, seconds: int) -> None:
        laboratory.call("UpdateTrainingJob", TrainingJobName=name,
                        ResourceConfig={"KeepAlivePeriodInSeconds": seconds})

    job("kept", "pass", **keeping(2))
    update("kept", 300)
    described = laboratory.describe("kept")
    assert described["ResourceConfig"]["KeepAlivePeriodInSeconds"] == 300
    time.sleep(2.2)  # the first period is over
    assert pool(laboratory, "kept")["Status"] == "Available"
    with pytest.raises(ResourceInUse, match="KeepAlivePeriodInSeconds 0"):
        laboratory.call("DeleteTrainingJob", TrainingJobName="kept")
    update("kept", 0)
    with pytest.raises(ValidationException, match="no warm pool to change, its status is"):
        update("kept", 60)
    laboratory.call("DeleteTrainingJob", TrainingJobName="kept")
    job("without", "pass")
    with pytest.raises(ValidationException, match="its status is none"):
        update("without", 60)
    laboratory.call("CreateTrainingJob", **training_request(
        "running", AlgorithmSpecification=laboratory.program(
            "print('ready', flush=True)\nwhile not (ml / 'input/go').exists(): time.sleep(0.02)"),
        **keeping(),
    ))
    laboratory.until_printed("running", "ready")
    update("running", 0)
    (laboratory.ml("running") / "input/go").touch()
    laboratory.wait("running")
    assert "WarmPoolStatus" not in laboratory.describe("running")
    for nothing in ({}, {"ResourceConfig": {}}):
        with pytest.raises(ValidationException, match="nothing to change here"):
            laboratory.call("UpdateTrainingJob", TrainingJobName="without", **nothing)


@pytest.mark.parametrize("how", [{}, {"keep_running": True}])
def test_a_pool_ends_with_its_server(laboratory: Any, job: Any, how: dict[str, Any]) -> None:
    job("left", "pass", **keeping())
    laboratory.close(**how)
    laboratory.open()

    assert pool(laboratory, "left")["Status"] == "Terminated"


def test_a_pool_of_a_server_that_was_killed_has_ended(laboratory: Any, job: Any) -> None:
    """As SIGKILL leaves it: the record says Available, and there is nothing of it."""
    job("left", "pass", **keeping())
    before = laboratory.state.get("training-job", laboratory.caller, "left").document["pool"]
    laboratory.close()
    laboratory.open(start=False)
    laboratory.state.mutate("training-job", laboratory.caller, "left",
                            lambda row: row.document.update(pool=before))
    laboratory.training.start()

    assert pool(laboratory, "left")["Status"] == "Terminated"


# --- what is kept ready, in process mode ----------------------------------------------------------

ALGORITHM = '''\
import json
import os
import sys
import time

from byoa.algorithms import Algorithm

IMPORTED = time.time()
SEEN = []
print("imported by", os.getpid(), flush=True)


class Telling(Algorithm):
    def train(self, run):
        SEEN.append(os.getpid())
        tree = sorted(
            str(path.relative_to(run.layout.root)) for path in run.layout.root.rglob("*")
            if path.is_file() and "config" not in path.parts
        )
        (run.layout.root / "litter").touch()
        (run.model_dir / "weights").write_text("w")
        print("told " + json.dumps({
            "imported": IMPORTED, "seen": SEEN, "tree": tree, "word": WORD, "cwd": os.getcwd(),
            "environment": dict(os.environ), "argv": sys.argv, "path": sys.path[0],
        }), flush=True)
        if os.environ.get("WAIT"):
            time.sleep(60)

    def load(self, model_dir, device):
        return None

    def predict(self, model, records):
        return records.sum(axis=1)
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "telling"
    made.mkdir()
    write(made, "first")
    return made


def write(folder: Path, word: str) -> None:
    (folder / "telling.py").write_text(f"{ALGORITHM}\n\nWORD = {word!r}\n")
    # Older than a kept interpreter: only what changes under it counts.
    os.utime(folder / "telling.py", (time.time() - 60,) * 2)


@pytest.fixture(params=["off", "auto"])
def told(
    request: Any, new_laboratory: Any, training_request: Any, folder: Path
) -> Callable[..., dict[str, Any]]:
    """Runs the algorithm as a job; what it says of itself, and the laboratory and description."""
    import json

    from byoa.local.runners.images import Images

    laboratory = new_laboratory(sandbox=request.param)
    if request.param == "auto" and laboratory.runner.no_sandbox is not None:
        pytest.skip(laboratory.runner.no_sandbox)
    Images(laboratory.state).add("telling", folder)

    def run(name: str, **members: Any) -> dict[str, Any]:
        laboratory.call("CreateTrainingJob", **training_request(
            name,
            AlgorithmSpecification={"TrainingImage": "telling:latest", "TrainingInputMode": "File"},
            **{**keeping(), **members},
        ))
        described = laboratory.wait(name)
        assert described["TrainingJobStatus"] == "Completed", laboratory.lines(name)
        (line,) = [line for line in laboratory.lines(name) if line.startswith("told ")]
        found = json.loads(line.removeprefix("told "))
        found["warm"] = found["imported"] < described["CreationTime"]
        return {**found, "laboratory": laboratory, "described": described}

    return run


def kept(laboratory: Any) -> list[Any]:
    """The processes that wait for a job."""
    with laboratory.training._pools._lock:
        return [warm for each in laboratory.training._pools._kept.values()
                for warm in each.values()]


def until_ready(laboratory: Any) -> Any:
    """Wait until an interpreter waits, its imports done; its process."""
    until(lambda: kept(laboratory))
    (warm,) = kept(laboratory)
    until(lambda: _waits(warm._process.pid))
    return warm._process


def _waits(shim: int) -> bool:
    from byoa.local.runners import identity

    for pid in identity.children_of(shim):
        text = Path(f"/proc/{pid}/wchan").read_text() if Path(f"/proc/{pid}/wchan").exists() else ""
        if "pipe" in text:
            return True
    return False


def test_the_next_job_finds_the_algorithm_imported_and_nothing_else_of_the_last(
    told: Any, folder: Path
) -> None:
    """TRAIN-214."""
    first = told("first")
    assert not first["warm"]
    until_ready(first["laboratory"])
    second = told("second")

    assert second["warm"]
    assert len(second["seen"]) == 1 and second["seen"] != first["seen"]
    assert second["tree"] == first["tree"]
    for name in ("argv", "word", "cwd", "path"):
        assert second[name] == first[name], name
    assert second["cwd"] == str(folder)
    own = {"TRAINING_JOB_NAME", "TRAINING_JOB_ARN", "SAGEMAKER_BASE_DIR", "HOME", "TMPDIR"}
    environments = [
        {name: value.replace("/second/", "/first/")
         for name, value in each["environment"].items() if name not in own}
        for each in (first, second)
    ]
    assert environments[0] == environments[1]
    assert "BYOA_WARM" not in environments[1]
    assert second["environment"]["TRAINING_JOB_NAME"] == "second"
    lines = second["laboratory"].lines("second")
    assert [line.split()[0] for line in lines if line.startswith("imported by")] == ["imported"]
    assert second["laboratory"].archive("output/second/output/model.tar.gz")["weights"] == b"w"


@pytest.mark.parametrize("change", [
    lambda folder: write(folder, "second"),
    lambda folder: (folder / "another.py").write_text(""),
    lambda folder: (folder / "telling.py").write_text(f"{ALGORITHM}\n\nWORD = 'second'\n"),
], ids=["same-time", "new-file", "rewritten"])
def test_changed_code_is_never_run_as_it_was(told: Any, folder: Path, change: Any) -> None:
    first = told("first")
    until_ready(first["laboratory"])
    change(folder)
    second = told("second")

    assert not second["warm"]
    assert second["word"] == ("first" if (folder / "another.py").exists() else "second")


def test_a_job_with_another_environment_starts_anew(told: Any) -> None:
    """Libraries read some variables when they are imported."""
    first = told("first")
    process = until_ready(first["laboratory"])
    second = told("second", Environment={"OMP_NUM_THREADS": "1"})

    assert not second["warm"]
    assert second["environment"]["OMP_NUM_THREADS"] == "1"
    assert pool(second["laboratory"], "first")["Status"] == "Reused"
    until(lambda: process.poll() is not None)


@pytest.mark.parametrize("end", ["period", "update", "close", "pipe"])
def test_what_is_kept_ends_with_its_pool(told: Any, end: str) -> None:
    """pain 40: neither process nor directory is left; the pipe's end is that of a killed server."""
    first = told("first", **keeping(2 if end == "period" else 300))
    laboratory = first["laboratory"]
    until(lambda: kept(laboratory))
    (warm,) = kept(laboratory)
    process, scratch = warm._process, warm.scratch
    if end == "update":
        laboratory.call("UpdateTrainingJob", TrainingJobName="first",
                        ResourceConfig={"KeepAlivePeriodInSeconds": 0})
    elif end == "close":
        laboratory.close()
    elif end == "pipe":
        process.stdin.close()
    until(lambda: process.poll() is not None)
    until(lambda: not scratch.exists())
    if end != "pipe":
        assert kept(laboratory) == []


def test_a_job_that_became_of_what_was_kept_is_stopped_and_adopted_like_any(
    told: Any, training_request: Any
) -> None:
    """TRAIN-150; the next server finds it by its directory."""
    waiting = {"Environment": {"WAIT": "1"}}
    first = told("first")
    laboratory = first["laboratory"]
    request = training_request(
        "waits", AlgorithmSpecification={"TrainingImage": "telling:latest",
                                         "TrainingInputMode": "File"}, **keeping(), **waiting,
    )
    laboratory.call("CreateTrainingJob", **request)
    until(lambda: any(line.startswith("told") for line in laboratory.lines("waits")))
    laboratory.call("StopTrainingJob", TrainingJobName="waits")
    laboratory.wait("waits")
    until_ready(laboratory)
    laboratory.call("CreateTrainingJob", **{**request, "TrainingJobName": "again"})
    until(lambda: any(line.startswith("told") for line in laboratory.lines("again")))
    assert pool(laboratory, "waits")["Status"] == "Reused"
    laboratory.restart()
    assert laboratory.describe("again")["SecondaryStatus"] == "Training"
    laboratory.call("StopTrainingJob", TrainingJobName="again")
    described = laboratory.wait("again")

    assert described["TrainingJobStatus"] == "Stopped"
    assert any("SIGTERM: run.stopping is set" in line for line in laboratory.lines("again"))


def test_an_interpreter_that_died_while_it_waited_costs_nothing(told: Any) -> None:
    import signal

    first = told("first")
    process = until_ready(first["laboratory"])
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)

    assert not told("second")["warm"]
