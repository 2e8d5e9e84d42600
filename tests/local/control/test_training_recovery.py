"""Servers that go and come back: nothing runs twice, nothing is lost, nothing is left."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.both_runners


WAITING = """
print('process', os.getpid(), time.time_ns(), flush=True)
print('loss=1.0', flush=True)
while not (ml / 'input/go').exists(): time.sleep(0.02)
print('loss=0.5')
(ml / 'model' / 'weights').write_text('w')
"""


def create(laboratory: Any, training_request: Any, name: str, **members: Any) -> tuple[str, Path]:
    """A job that waits for a file: the line that tells its process from another, and the file."""
    program = laboratory.program(WAITING)
    program["MetricDefinitions"] = [{"Name": "loss", "Regex": "loss=([0-9.]+)"}]
    laboratory.call(
        "CreateTrainingJob",
        **training_request(name, AlgorithmSpecification=program, **members),
    )
    laboratory.until_printed(name, "loss=1.0")
    return laboratory.lines(name)[0], laboratory.ml(name) / "input/go"


def forget_logs(laboratory: Any) -> None:
    """The log service of the next server is empty: it keeps everything in memory."""
    laboratory.logs.delete_group(laboratory.caller, "/aws/sagemaker/TrainingJobs")


def test_a_running_job_is_adopted_and_goes_on_to_its_end(
    laboratory: Any, training_request: Any
) -> None:
    """pain 3; logs and metrics are those of the whole job."""
    process, go = create(laboratory, training_request, "adopted")
    laboratory.close(keep_running=True)
    forget_logs(laboratory)
    assert len(laboratory.onlooker.running()) == 1
    laboratory.open()
    laboratory.until_printed("adopted", "loss=1.0")
    assert laboratory.describe("adopted")["SecondaryStatus"] == "Training"
    go.touch()
    described = laboratory.wait("adopted")

    assert described["TrainingJobStatus"] == "Completed"
    assert laboratory.lines("adopted") == [process, "loss=1.0", "loss=0.5"]
    assert described["FinalMetricDataList"][0]["Value"] == 0.5
    statuses = [entry["Status"] for entry in described["SecondaryStatusTransitions"]]
    assert statuses == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert laboratory.keys("output/adopted/") == ["output/adopted/output/model.tar.gz"]


@pytest.mark.process_only("byoa 0.1 knew no Docker")
def test_a_job_that_byoa_0_1_started_is_adopted(laboratory: Any, training_request: Any) -> None:
    """Its record names one container and one stream, and no host."""
    _, go = create(laboratory, training_request, "former")
    laboratory.close(keep_running=True)
    forget_logs(laboratory)
    laboratory.open(start=False)

    def of_0_1(row: Any) -> None:
        row.document.update(row.document.pop("hosts")["algo-1"])

    laboratory.state.mutate("training-job", laboratory.caller, "former", of_0_1)
    directory = laboratory.home / "jobs/training-123456789012-eu-west-1/former"
    (directory / "ml").symlink_to("algo-1/ml")
    laboratory.training.start()
    laboratory.until_printed("former", "loss=1.0")
    go.touch()
    described = laboratory.wait("former")

    assert described["TrainingJobStatus"] == "Completed"
    assert laboratory.archive("output/former/output/model.tar.gz") == {"weights": b"w"}
    (stream,) = laboratory.streams("former")
    laboratory.close()
    forget_logs(laboratory)
    laboratory.open()
    laboratory.until_printed("former", "loss=0.5")
    assert list(laboratory.streams("former")) == [stream]
    laboratory.call("DeleteTrainingJob", TrainingJobName="former")
    assert laboratory.streams("former") == {}


def test_a_job_that_ended_while_no_server_ran_is_finished(
    laboratory: Any, training_request: Any
) -> None:
    process, go = create(laboratory, training_request, "meanwhile")
    laboratory.close(keep_running=True)
    forget_logs(laboratory)
    go.touch()
    laboratory.until_ended()
    laboratory.open()
    described = laboratory.wait("meanwhile")

    assert described["TrainingJobStatus"] == "Completed"
    assert laboratory.lines("meanwhile") == [process, "loss=1.0", "loss=0.5"]
    assert laboratory.keys("output/meanwhile/") == ["output/meanwhile/output/model.tar.gz"]


def test_a_job_whose_container_is_gone_fails_with_the_reason(
    laboratory: Any, training_request: Any
) -> None:
    create(laboratory, training_request, "gone")
    laboratory.close(keep_running=True)
    laboratory.onlooker.lose()
    laboratory.open()
    described = laboratory.wait("gone")

    assert described["TrainingJobStatus"] == "Failed"
    assert described["FailureReason"].startswith("InternalServerError: ")
    assert "process of the container is gone" in described["FailureReason"]


def test_a_stop_that_was_under_way_goes_on(laboratory: Any, training_request: Any) -> None:
    """TRAIN-151."""
    create(laboratory, training_request, "stopping")
    laboratory.close(keep_running=True)
    laboratory.open(start=False)
    laboratory.call("StopTrainingJob", TrainingJobName="stopping")
    assert len(laboratory.onlooker.running()) == 1
    laboratory.training.start()
    described = laboratory.wait("stopping")

    assert described["TrainingJobStatus"] == "Stopped"
    assert laboratory.onlooker.running() == []


def test_a_job_that_had_not_started_its_container_starts_again(
    laboratory: Any, training_request: Any, channel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while downloading."""
    laboratory.buckets.put_bytes("tests", "d/a", b"1")

    def killed(*arguments: Any) -> None:
        laboratory.training._runs[arn].leave()

    monkeypatch.setattr(laboratory.buckets, "materialise", killed)
    run = laboratory.training._run
    monkeypatch.setattr(laboratory.training, "_run", lambda row: None)
    arn = laboratory.call(
        "CreateTrainingJob",
        **training_request(
            "again", AlgorithmSpecification=laboratory.program(
                "print((ml / 'input/data/train/a').read_text())"),
            InputDataConfig=[channel("train", "s3://tests/d/")],
        ),
    )["TrainingJobArn"]
    monkeypatch.setattr(laboratory.training, "_run", run)
    run(laboratory.state.list("training-job")[0])
    assert laboratory.training._runs[arn].join(10)
    assert laboratory.describe("again")["SecondaryStatus"] == "Downloading"
    laboratory.close(keep_running=True)
    laboratory.open()
    described = laboratory.wait("again")

    assert described["TrainingJobStatus"] == "Completed"
    assert laboratory.lines("again") == ["1"]


def test_a_job_is_not_run_twice_when_the_server_died_just_after_starting_it(
    laboratory: Any, training_request: Any
) -> None:
    process, go = create(laboratory, training_request, "once")
    laboratory.close(keep_running=True)
    laboratory.open(start=False)
    laboratory.state.mutate(
        "training-job", laboratory.caller, "once",
        lambda row: row.document.pop("started_container"),
    )
    laboratory.training.start()
    go.touch()
    described = laboratory.wait("once")

    assert described["TrainingJobStatus"] == "Completed"
    assert laboratory.lines("once").count(process) >= 1
    assert len([line for line in set(laboratory.lines("once")) if "process" in line]) == 1


def test_the_runtime_limit_counts_the_time_without_a_server(
    laboratory: Any, training_request: Any
) -> None:
    """TRAIN-153."""
    create(
        laboratory, training_request, "limit", StoppingCondition={"MaxRuntimeInSeconds": 2}
    )
    laboratory.close(keep_running=True)
    time.sleep(2)
    laboratory.open()

    assert laboratory.wait("limit", timeout=10)["SecondaryStatus"] == "MaxRuntimeExceeded"


def test_an_orderly_shutdown_stops_jobs_and_keeps_what_they_have(
    laboratory: Any, training_request: Any
) -> None:
    """`byoa up` leaves no process behind."""
    create(laboratory, training_request, "shutdown")
    laboratory.close(timeout=2.0)
    assert laboratory.onlooker.running() == []
    laboratory.open()
    described = laboratory.describe("shutdown")

    assert described["TrainingJobStatus"] == "Stopped"
    assert "shut down" in described["SecondaryStatusTransitions"][-1]["StatusMessage"]
    assert laboratory.keys("output/shutdown/") == ["output/shutdown/output/model.tar.gz"]
    assert laboratory.onlooker.left() == []


def test_a_shutdown_kills_what_does_not_stop(laboratory: Any, training_request: Any) -> None:
    laboratory.call(
        "CreateTrainingJob",
        **training_request(
            "stubborn", AlgorithmSpecification=laboratory.program(
                "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
                "print('ready', flush=True)\ntime.sleep(60)"
            ),
        ),
    )
    laboratory.until_printed("stubborn", "ready")
    laboratory.close(timeout=0.3)

    assert laboratory.onlooker.running() == []


@pytest.mark.process_only("no container is involved")
def test_the_logs_of_ended_jobs_are_there_after_a_restart(laboratory: Any, job: Any) -> None:
    """pain 31: the log service keeps nothing on disk, the files do."""
    job("early", "print('first'); print(); print('drei: ß')")
    described = job("later", "sys.exit(1)")
    before = laboratory.streams("early")
    laboratory.close()
    forget_logs(laboratory)
    laboratory.open()
    laboratory.until_printed("early", "drei: ß")

    assert laboratory.streams("early") == before
    assert laboratory.describe("later") == described


@pytest.mark.process_only("no container is involved")
def test_a_deleted_jobs_log_is_not_the_next_ones_of_the_name(laboratory: Any, job: Any) -> None:
    """WIRE-22: the SDK takes the first stream below the name."""
    job("reused", "print('old')")
    laboratory.call("DeleteTrainingJob", TrainingJobName="reused")
    assert laboratory.streams("reused") == {}
    assert [path for path in (laboratory.home / "logs").rglob("*") if path.is_file()] == []
    job("reused", "print('new')")

    assert laboratory.lines("reused") == ["new"]


@pytest.mark.process_only("no container is involved")
def test_what_a_server_killed_at_a_jobs_end_left_is_cleared(laboratory: Any, job: Any) -> None:
    """pain 40."""
    job("ended", "(ml / 'model' / 'x').touch()")
    laboratory.close()
    left = laboratory.home / "jobs/training-123456789012-eu-west-1/ended/ml"
    left.mkdir(parents=True)
    laboratory.open()

    assert not left.exists()
