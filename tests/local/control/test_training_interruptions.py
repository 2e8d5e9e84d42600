"""Instances that are taken away: spot interruptions, faults of the platform, retries."""

from __future__ import annotations

import time
from typing import Any

import pytest

from byoa.local.errors import ValidationException

pytestmark = pytest.mark.both_runners

SPOT = {
    "EnableManagedSpotTraining": True,
    "StoppingCondition": {"MaxRuntimeInSeconds": 120, "MaxWaitTimeInSeconds": 240},
    "CheckpointConfig": {"S3Uri": "s3://tests/ck"},
}
# The first attempt saves its state and waits for the end; the second finds it and goes on.
RESUMING = """
place = ml / 'checkpoints/state'
before = place.read_text() if place.exists() else ''
print('begins with', repr(before), sorted(path.name for path in ml.iterdir()), flush=True)
def stop(number, frame):
    print('interrupted', flush=True)
    place.with_name('x.sagemaker-ignore').write_text(before + 'saved ')
    place.with_name('x.sagemaker-ignore').replace(place)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
(ml / 'model' / f'of-attempt-{len(before.split()) + 1}').touch()
(ml / 'litter').touch()
print('ready', len(before.split()), flush=True)
if len(before.split()) < ENOUGH:
    time.sleep(60)
"""


def submit(laboratory: Any, request: Any, name: str, source: str, **members: Any) -> None:
    program = laboratory.program(source)
    laboratory.call(
        "CreateTrainingJob", **request(name, AlgorithmSpecification=program, **members)
    )


def interrupt(laboratory: Any, name: str, **how: Any) -> dict[str, Any]:
    answer: dict[str, Any] = laboratory.training.interrupt(laboratory.caller, name, how)
    return answer


def test_an_interrupted_job_goes_on_from_its_checkpoints_with_a_fresh_tree(
    laboratory: Any, training_request: Any
) -> None:
    """TRAIN-160, TRAIN-161, TRAIN-163, TRAIN-170: whatever its exit code, it is not Completed."""
    submit(laboratory, training_request, "spot", RESUMING.replace("ENOUGH", "2"), **SPOT)
    for attempt in range(2):
        laboratory.until_printed("spot", f"ready {attempt}")
        interrupt(laboratory, "spot")
    described = laboratory.wait("spot")

    once = ["Starting", "Downloading", "Training"]
    assert laboratory.statuses("spot") == [
        *once, "Interrupted", *once, "Interrupted", *once, "Uploading", "Completed",
    ]
    lines = laboratory.lines("spot")
    begins = [line for line in lines if line.startswith("begins")]
    assert [line.split("'")[1] for line in begins] == ["", "saved ", "saved saved "]
    assert not any("litter" in line for line in begins)
    assert lines.count("interrupted") == 2
    assert laboratory.keys("ck/") == ["ck/state"]
    assert laboratory.archive("output/spot/output/model.tar.gz") == {"of-attempt-3": b""}
    assert len(laboratory.streams("spot")) == 3  # each instance has one of its own
    assert described["TrainingEndTime"] >= described["TrainingStartTime"]
    assert 0 < described["BillableTimeInSeconds"] <= described["TrainingTimeInSeconds"]


def test_a_job_that_does_not_end_in_the_notice_is_killed(
    laboratory: Any, training_request: Any
) -> None:
    """TRAIN-163: what was not in S3 by then is lost; the next attempt begins anew."""
    submit(laboratory, training_request, "stubborn", """
signal.signal(signal.SIGTERM, lambda *_: (ml / 'checkpoints/late').write_text('x'))
print('ready', flush=True)
if 'go' not in os.listdir(ml / 'checkpoints'):
    end = time.monotonic() + 60
    while time.monotonic() < end: time.sleep(0.1)
""", **SPOT)
    laboratory.until_printed("stubborn", "ready")
    laboratory.buckets.put_bytes("tests", "ck/go", b"")
    interrupt(laboratory, "stubborn", notice=0.3)
    laboratory.wait("stubborn")

    assert laboratory.statuses("stubborn").count("Interrupted") == 1
    assert laboratory.lines("stubborn") == ["ready", "ready"]


def test_time_without_instances_is_not_training_time(
    laboratory: Any, training_request: Any
) -> None:
    """TRAIN-160, TRAIN-204: the attempts' times add up."""
    submit(laboratory, training_request, "waiting", RESUMING.replace("ENOUGH", "1"), **SPOT)
    laboratory.until_printed("waiting", "ready 0")
    interrupt(laboratory, "waiting", away=3)
    described = laboratory.wait("waiting")

    entries = described["SecondaryStatusTransitions"]
    (gap,) = [each["EndTime"] - each["StartTime"] for each in entries
              if each["Status"] == "Interrupted"]
    whole = described["TrainingEndTime"] - described["TrainingStartTime"]
    assert gap >= 3
    assert described["TrainingTimeInSeconds"] <= whole - 3 + 2  # of the notice, and rounded up


def test_a_job_without_capacity_ends_when_its_wait_is_over(
    laboratory: Any, training_request: Any
) -> None:
    """TRAIN-152, TRAIN-161, TRAP-53."""
    submit(laboratory, training_request, "starved", RESUMING.replace("ENOUGH", "1"), **{
        **SPOT, "StoppingCondition": {"MaxRuntimeInSeconds": 4, "MaxWaitTimeInSeconds": 4},
    })
    laboratory.until_printed("starved", "ready 0")
    interrupt(laboratory, "starved", away=600)
    described = laboratory.wait("starved")

    assert described["TrainingJobStatus"] == "Stopped"
    assert described["SecondaryStatus"] == "MaxWaitTimeExceeded"
    assert laboratory.statuses("starved")[-2:] == ["Interrupted", "MaxWaitTimeExceeded"]


def test_the_runtime_limit_is_one_for_all_attempts(
    laboratory: Any, training_request: Any
) -> None:
    """TRAIN-153: the second attempt gets what the first has left."""
    submit(laboratory, training_request, "limited", RESUMING.replace("ENOUGH", "9"), **{
        **SPOT, "StoppingCondition": {"MaxRuntimeInSeconds": 4, "MaxWaitTimeInSeconds": 100},
    })
    laboratory.until_printed("limited", "ready 0")
    interrupt(laboratory, "limited", after=2)
    described = laboratory.wait("limited")

    assert described["SecondaryStatus"] == "MaxRuntimeExceeded"
    assert laboratory.statuses("limited").count("Interrupted") == 1
    first = next(each for each in described["SecondaryStatusTransitions"]
                 if each["Status"] == "Training")
    assert first["EndTime"] - first["StartTime"] >= 2


def test_a_job_is_stopped_while_it_waits_for_capacity(
    laboratory: Any, training_request: Any
) -> None:
    submit(laboratory, training_request, "stopped", RESUMING.replace("ENOUGH", "1"), **SPOT)
    laboratory.until_printed("stopped", "ready 0")
    interrupt(laboratory, "stopped", away=600)
    laboratory.until("stopped", lambda job: job["SecondaryStatus"] == "Interrupted")
    end = time.monotonic() + 20
    while laboratory.onlooker.left():
        assert time.monotonic() < end
        time.sleep(0.02)
    laboratory.call("StopTrainingJob", TrainingJobName="stopped")
    try:
        laboratory.call("StopTrainingJob", TrainingJobName="stopped")
    except ValidationException as error:  # it was there first
        assert "Stopped" in str(error)
    described = laboratory.wait("stopped")

    assert described["TrainingJobStatus"] == described["SecondaryStatus"] == "Stopped"
    assert laboratory.statuses("stopped")[-3:] == ["Interrupted", "Stopping", "Stopped"]


def test_a_stop_during_the_notice_ends_the_job(laboratory: Any, training_request: Any) -> None:
    """TRAIN-151: Stopped with its model, and not run again."""
    submit(laboratory, training_request, "both", """
def stop(number, frame):
    print('noticed', flush=True)
    while not (ml / 'input/go').exists(): time.sleep(0.02)
    (ml / 'model/saved').touch()
    sys.exit(3)
signal.signal(signal.SIGTERM, stop)
print('ready', flush=True)
time.sleep(60)
""", **SPOT)
    laboratory.until_printed("both", "ready")
    interrupt(laboratory, "both")
    laboratory.until_printed("both", "noticed")
    laboratory.call("StopTrainingJob", TrainingJobName="both")
    (laboratory.ml("both") / "input/go").touch()
    described = laboratory.wait("both")

    assert described["TrainingJobStatus"] == "Stopped"
    assert laboratory.statuses("both").count("Training") == 1
    assert laboratory.archive("output/both/output/model.tar.gz") == {"saved": b""}


@pytest.mark.parametrize("again", ["running", "waiting"])
def test_an_interruption_outlives_the_server(
    laboratory: Any, training_request: Any, again: str
) -> None:
    """pain 3: the next server goes on with it, in the notice or before the next attempt."""
    submit(laboratory, training_request, "outlived", RESUMING.replace("ENOUGH", "1"), **SPOT)
    laboratory.until_printed("outlived", "ready 0")
    if again == "running":
        laboratory.close(keep_running=True)
        laboratory.open(start=False)
        interrupt(laboratory, "outlived")
        laboratory.training.start()
    else:
        interrupt(laboratory, "outlived", away=4)
        laboratory.until_ended()
        laboratory.until("outlived", lambda job: job["SecondaryStatus"] == "Interrupted")
        laboratory.restart()
    described = laboratory.wait("outlived")

    assert described["TrainingJobStatus"] == "Completed"
    assert laboratory.statuses("outlived").count("Interrupted") == 1
    assert laboratory.archive("output/outlived/output/model.tar.gz") == {"of-attempt-2": b""}


@pytest.mark.process_only("no container is involved")
def test_what_cannot_be_interrupted_is_refused_with_the_reason(
    laboratory: Any, training_request: Any, job: Any
) -> None:
    job("over", "pass", **SPOT)
    with pytest.raises(ValidationException, match="its status is Completed"):
        interrupt(laboratory, "over")
    with pytest.raises(ValidationException, match="not found"):
        interrupt(laboratory, "none")
    submit(laboratory, training_request, "plain", "time.sleep(60)")
    with pytest.raises(ValidationException, match="no managed spot job.*--fault"):
        interrupt(laboratory, "plain")
    for wrong, said in (({"after": -1}, "after is -1"), ({"notice": "soon"}, "notice is 'soon'"),
                        ({"fault": 1}, "fault is 1"), ({"when": 1}, "has no when")):
        with pytest.raises(ValidationException, match=said):
            interrupt(laboratory, "plain", **wrong)
    assert laboratory.describe("plain")["TrainingJobStatus"] == "InProgress"
    laboratory.call("StopTrainingJob", TrainingJobName="plain")
    laboratory.wait("plain")


# --- faults of the platform -----------------------------------------------------------------------

TRIES = """
tries = ml / 'checkpoints/tries'
tried = int(tries.read_text()) + 1 if tries.exists() else 1
part = tries.with_name('x.sagemaker-ignore')
part.write_text(str(tried))
part.replace(tries)
print('try', tried, flush=True)
if tried <= LOST: time.sleep(60)
"""
CHECKPOINTS = {"CheckpointConfig": {"S3Uri": "s3://tests/ck"}}


def until_saved(laboratory: Any, name: str, attempt: int) -> None:
    """Wait until the attempt's checkpoint is in S3."""
    laboratory.until_printed(name, f"try {attempt}")
    end = time.monotonic() + 20
    while not (laboratory.keys("ck/") and laboratory.get("ck/tries") == b"%d" % attempt):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_fault_is_retried_as_often_as_asked(laboratory: Any, training_request: Any) -> None:
    """TRAIN-143, TRAIN-210: from a fresh tree and the checkpoints."""
    submit(laboratory, training_request, "retried", TRIES.replace("LOST", "2"),
           RetryStrategy={"MaximumRetryAttempts": 2}, **CHECKPOINTS)
    for attempt in (1, 2):
        until_saved(laboratory, "retried", attempt)
        interrupt(laboratory, "retried", fault=True)
    described = laboratory.wait("retried")

    assert described["TrainingJobStatus"] == "Completed"
    assert described["RetryStrategy"] == {"MaximumRetryAttempts": 2}
    once = ["Starting", "Downloading", "Training"]
    assert laboratory.statuses("retried") == [
        *once, "Restarting", *once, "Restarting", *once, "Uploading", "Completed",
    ]
    assert laboratory.lines("retried") == ["try 1", "try 2", "try 3"]


def test_a_job_fails_when_its_retries_are_used_up(laboratory: Any, training_request: Any) -> None:
    submit(laboratory, training_request, "unlucky", TRIES.replace("LOST", "9"),
           RetryStrategy={"MaximumRetryAttempts": 1}, **CHECKPOINTS)
    for attempt in (1, 2):
        until_saved(laboratory, "unlucky", attempt)
        interrupt(laboratory, "unlucky", fault=True)
    described = laboratory.wait("unlucky")

    assert described["TrainingJobStatus"] == "Failed"
    assert described["FailureReason"].startswith("InternalServerError: ")
    assert laboratory.statuses("unlucky").count("Restarting") == 1


@pytest.mark.process_only("no engine is involved")
def test_an_algorithms_failure_is_not_retried(laboratory: Any, job: Any) -> None:
    """TRAIN-143: nor a killed container process, which is exit code 137."""
    for name, source in (("exits", "sys.exit(3)"),
                         ("killed", "os.kill(os.getpid(), signal.SIGKILL)")):
        described = job(name, source, RetryStrategy={"MaximumRetryAttempts": 3})
        assert described["FailureReason"].startswith("AlgorithmError: "), name
        assert "Restarting" not in laboratory.statuses(name)


def test_a_container_that_vanished_is_a_fault_and_retried(
    laboratory: Any, training_request: Any
) -> None:
    """TRAIN-210: somebody removed it, or what watched it, while the server ran or did not."""
    submit(laboratory, training_request, "vanished", TRIES.replace("LOST", "2"),
           RetryStrategy={"MaximumRetryAttempts": 2}, **CHECKPOINTS)
    until_saved(laboratory, "vanished", 1)
    laboratory.onlooker.vanish()
    until_saved(laboratory, "vanished", 2)
    laboratory.close(keep_running=True)
    laboratory.onlooker.lose()
    laboratory.open()
    described = laboratory.wait("vanished")

    assert described["TrainingJobStatus"] == "Completed"
    assert laboratory.statuses("vanished").count("Restarting") == 2


def test_a_fault_of_a_job_without_a_retry_strategy_is_its_end(
    laboratory: Any, training_request: Any
) -> None:
    submit(laboratory, training_request, "fault", "print('ready', flush=True)\ntime.sleep(60)")
    laboratory.until_printed("fault", "ready")
    interrupt(laboratory, "fault", fault=True)
    described = laboratory.wait("fault")

    assert described["TrainingJobStatus"] == "Failed"
    assert described["FailureReason"].startswith("InternalServerError: ")
    assert "--fault" in described["FailureReason"]
