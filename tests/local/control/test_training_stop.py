"""Stopping: by the user, by the clock, before the start, twice, too late."""

from __future__ import annotations

import time
from typing import Any

import pytest

from byoa.local.errors import ResourceInUse, ValidationException

pytestmark = pytest.mark.both_runners

PATIENT = """
def stop(number, frame):
    (ml / 'model' / 'saved').write_text('partial')
    print('stopping', flush=True)
    time.sleep(1)
    sys.exit(7)
signal.signal(signal.SIGTERM, stop)
import os
os.write(1, b'ready\\n')  # past Python's buffer: the handler may come in at once, and prints
time.sleep(60)
"""


def test_a_stopped_job_may_save_and_is_stopped_whatever_its_exit_code(
    laboratory: Any, training_request: Any
) -> None:
    """TRAIN-150, TRAIN-151, TRAIN-137, TRAIN-203, ALG-02."""
    laboratory.call(
        "CreateTrainingJob",
        **training_request("stopped", AlgorithmSpecification=laboratory.program(PATIENT)),
    )
    laboratory.until_printed("stopped", "ready")
    for _ in range(2):  # asking again while it stops is no error
        assert laboratory.call("StopTrainingJob", TrainingJobName="stopped") == {}
    assert laboratory.describe("stopped")["TrainingJobStatus"] in ("Stopping", "Stopped")
    described = laboratory.wait("stopped")

    assert described["TrainingJobStatus"] == described["SecondaryStatus"] == "Stopped"
    assert "FailureReason" not in described
    assert laboratory.statuses("stopped")[-4:] == [
        "Training", "Stopping", "Uploading", "Stopped",
    ]
    assert laboratory.lines("stopped") == ["ready", "stopping"]
    assert laboratory.archive("output/stopped/output/model.tar.gz") == {"saved": b"partial"}


def test_a_job_that_ignores_sigterm_is_killed_after_the_grace(
    new_laboratory: Any, training_request: Any
) -> None:
    """TRAIN-150, TRAIN-152, TRAIN-153, CHK-35; the grace is a setting."""
    laboratory = new_laboratory(stop_grace=0.5)
    laboratory.call(
        "CreateTrainingJob",
        **training_request(
            "stubborn",
            AlgorithmSpecification=laboratory.program(
                "signal.signal(signal.SIGTERM, lambda *_: print('no', flush=True))\n"
                "(ml / 'model' / 'kept').touch()\n"
                "end = time.monotonic() + 60\n"
                "while time.monotonic() < end: time.sleep(0.1)"
            ),
            StoppingCondition={"MaxRuntimeInSeconds": 1},
        ),
    )
    described = laboratory.wait("stubborn")

    assert described["TrainingJobStatus"] == "Stopped"
    assert described["SecondaryStatus"] == "MaxRuntimeExceeded"
    assert "FailureReason" not in described
    assert laboratory.lines("stubborn") == ["no"]
    assert laboratory.archive("output/stubborn/output/model.tar.gz") == {"kept": b""}


@pytest.mark.process_only("no container runs when the request comes")
def test_an_ended_job_cannot_be_stopped(laboratory: Any, job: Any) -> None:
    """TRAIN-154, WIRE-06."""
    job("over", "sys.exit(1)")
    with pytest.raises(ValidationException) as caught:
        laboratory.call("StopTrainingJob", TrainingJobName="over")

    assert caught.value.message == (
        "The request was rejected because the training job is in status Failed."
    )


@pytest.mark.process_only("no container starts")
def test_a_job_stopped_before_its_container_starts_never_runs(
    laboratory: Any, training_request: Any, channel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ALG-02: Downloading → Stopping → Stopped, nothing uploaded."""
    laboratory.buckets.put_bytes("tests", "data/a", b"1")
    materialise = laboratory.buckets.materialise

    def stop_then_copy(*arguments: Any) -> Any:
        laboratory.call("StopTrainingJob", TrainingJobName="early")
        return materialise(*arguments)

    monkeypatch.setattr(laboratory.buckets, "materialise", stop_then_copy)
    laboratory.call(
        "CreateTrainingJob",
        **training_request(
            "early", AlgorithmSpecification=laboratory.program("print('ran')"),
            InputDataConfig=[channel("train", "s3://tests/data/")],
        ),
    )
    laboratory.wait("early")

    assert laboratory.statuses("early") == ["Starting", "Downloading", "Stopping", "Stopped"]
    assert laboratory.lines("early") == []
    assert laboratory.keys("output/early/") == []


@pytest.mark.process_only("no container runs any more")
def test_a_job_stopped_while_it_uploads_is_stopped_with_its_model(
    laboratory: Any, training_request: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRAIN-203, TRAP-26: the second stop changes nothing."""
    put_file = laboratory.buckets.put_file

    def stop_then_put(*arguments: Any, **how: Any) -> Any:
        for _ in range(2):
            laboratory.call("StopTrainingJob", TrainingJobName="late")
        return put_file(*arguments, **how)

    monkeypatch.setattr(laboratory.buckets, "put_file", stop_then_put)
    laboratory.call("CreateTrainingJob", **training_request(
        "late", AlgorithmSpecification=laboratory.program("(ml / 'model/whole').touch()")
    ))
    described = laboratory.wait("late")

    assert described["TrainingJobStatus"] == described["SecondaryStatus"] == "Stopped"
    assert laboratory.statuses("late")[-3:] == ["Uploading", "Stopping", "Stopped"]
    assert laboratory.archive("output/late/output/model.tar.gz") == {"whole": b""}


@pytest.mark.process_only("no container starts")
def test_the_runtime_limit_ends_a_download_too(
    laboratory: Any, training_request: Any, channel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRAIN-152, TRAIN-153: the instances are there already."""
    for name in "ab":
        laboratory.buckets.put_bytes("tests", f"data/{name}", b"1")
    materialise = laboratory.buckets.materialise

    def slowly(*arguments: Any) -> Any:
        time.sleep(1.1)  # longer than the limit, which is looked at before the next object
        return materialise(*arguments)

    monkeypatch.setattr(laboratory.buckets, "materialise", slowly)
    laboratory.call("CreateTrainingJob", **training_request(
        "slow", AlgorithmSpecification=laboratory.program("print('ran')"),
        InputDataConfig=[channel("train", "s3://tests/data/")],
        StoppingCondition={"MaxRuntimeInSeconds": 1},
    ))
    described = laboratory.wait("slow")

    assert described["TrainingJobStatus"] == "Stopped"
    assert described["SecondaryStatus"] == "MaxRuntimeExceeded"
    assert laboratory.lines("slow") == []


def test_a_running_job_cannot_be_deleted(laboratory: Any, training_request: Any) -> None:
    laboratory.call(
        "CreateTrainingJob",
        **training_request("busy", AlgorithmSpecification=laboratory.program("time.sleep(60)")),
    )
    with pytest.raises(ResourceInUse):
        laboratory.call("DeleteTrainingJob", TrainingJobName="busy")
    laboratory.call("StopTrainingJob", TrainingJobName="busy")
    laboratory.wait("busy")


def test_two_jobs_run_side_by_side(laboratory: Any, training_request: Any) -> None:
    for name in ("left", "right"):
        laboratory.call(
            "CreateTrainingJob",
            **training_request(
                name, AlgorithmSpecification=laboratory.program(
                    "print('ready', flush=True)\n"
                    "while not (ml / 'input/go').exists(): time.sleep(0.02)"
                ),
            ),
        )
    for name in ("left", "right"):
        laboratory.until_printed(name, "ready")
    for name in ("left", "right"):
        (laboratory.ml(name) / "input/go").touch()
        assert laboratory.wait(name)["TrainingJobStatus"] == "Completed"


@pytest.mark.process_only("no container starts")
def test_nothing_is_run_after_close(laboratory: Any, training_request: Any) -> None:
    laboratory.training.close()
    with pytest.raises(Exception, match="shut down"):
        laboratory.call(
            "CreateTrainingJob",
            **training_request("late", AlgorithmSpecification=laboratory.program("pass")),
        )
