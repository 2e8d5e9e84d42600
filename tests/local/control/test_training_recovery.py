"""Servers that go and come back: nothing runs twice, nothing is lost, nothing is left."""

from __future__ import annotations

import os
import shutil
import signal
import time
from typing import Any

import pytest

from byoa.local.runners import identity


def waiting(laboratory: Any) -> tuple[dict[str, Any], Any]:
    """A program that prints, waits for a file, prints and ends with a model; and the file."""
    go = laboratory.scripts / "go"
    source = (
        "print('pid', os.getpid(), flush=True)\nprint('loss=1.0', flush=True)\n"
        f"go = pathlib.Path({str(go)!r})\n"
        "while not go.exists(): time.sleep(0.02)\n"
        "print('loss=0.5')\n(ml / 'model' / 'weights').write_text('w')\n"
    )
    return laboratory.program(source), go


def create(laboratory: Any, training_request: Any, name: str, **members: Any) -> tuple[int, Any]:
    program, go = waiting(laboratory)
    program["MetricDefinitions"] = [{"Name": "loss", "Regex": "loss=([0-9.]+)"}]
    laboratory.call(
        "CreateTrainingJob",
        **training_request(name, AlgorithmSpecification=program, **members),
    )
    laboratory.until_printed(name, "loss=1.0")
    return int(laboratory.lines(name)[0].split()[1]), go


def forget_logs(laboratory: Any) -> None:
    """The log service of the next server is empty: it keeps everything in memory."""
    laboratory.logs.delete_group(laboratory.caller, "/aws/sagemaker/TrainingJobs")


def test_a_running_job_is_adopted_and_goes_on_to_its_end(
    laboratory: Any, training_request: Any
) -> None:
    """pain 3; logs and metrics are those of the whole job."""
    pid, go = create(laboratory, training_request, "adopted")
    laboratory.close(keep_running=True)
    forget_logs(laboratory)
    assert identity.start_time(pid) is not None
    laboratory.open()
    laboratory.until_printed("adopted", "loss=1.0")
    assert laboratory.describe("adopted")["SecondaryStatus"] == "Training"
    go.touch()
    described = laboratory.wait("adopted")

    assert described["TrainingJobStatus"] == "Completed"
    assert laboratory.lines("adopted") == [f"pid {pid}", "loss=1.0", "loss=0.5"]
    assert described["FinalMetricDataList"][0]["Value"] == 0.5
    statuses = [entry["Status"] for entry in described["SecondaryStatusTransitions"]]
    assert statuses == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert laboratory.keys("output/adopted/") == ["output/adopted/output/model.tar.gz"]


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
    pid, go = create(laboratory, training_request, "meanwhile")
    laboratory.close(keep_running=True)
    forget_logs(laboratory)
    go.touch()
    while identity.start_time(pid) is not None:
        time.sleep(0.02)
    laboratory.open()
    described = laboratory.wait("meanwhile")

    assert described["TrainingJobStatus"] == "Completed"
    assert laboratory.lines("meanwhile") == [f"pid {pid}", "loss=1.0", "loss=0.5"]
    assert laboratory.keys("output/meanwhile/") == ["output/meanwhile/output/model.tar.gz"]


def test_a_job_whose_container_is_gone_fails_with_the_reason(
    laboratory: Any, training_request: Any
) -> None:
    pid, _ = create(laboratory, training_request, "gone")
    laboratory.close(keep_running=True)
    os.killpg(pid, signal.SIGKILL)
    while identity.start_time(pid) is not None:
        time.sleep(0.02)
    time.sleep(0.2)
    shutil.rmtree(laboratory.home / "containers")
    laboratory.open()
    described = laboratory.wait("gone")

    assert described["TrainingJobStatus"] == "Failed"
    assert described["FailureReason"].startswith("InternalServerError: ")
    assert "process of the container is gone" in described["FailureReason"]


def test_a_stop_that_was_under_way_goes_on(laboratory: Any, training_request: Any) -> None:
    """TRAIN-151."""
    pid, _ = create(laboratory, training_request, "stopping")
    laboratory.close(keep_running=True)
    laboratory.open(start=False)
    laboratory.call("StopTrainingJob", TrainingJobName="stopping")
    assert identity.start_time(pid) is not None
    laboratory.training.start()
    described = laboratory.wait("stopping")

    assert described["TrainingJobStatus"] == "Stopped"
    assert identity.start_time(pid) is None


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
    pid, go = create(laboratory, training_request, "once")
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
    assert laboratory.lines("once").count(f"pid {pid}") >= 1
    assert len([line for line in set(laboratory.lines("once")) if "pid" in line]) == 1


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
    pid, _ = create(laboratory, training_request, "shutdown")
    laboratory.close(timeout=2.0)
    assert identity.start_time(pid) is None
    laboratory.open()
    described = laboratory.describe("shutdown")

    assert described["TrainingJobStatus"] == "Stopped"
    assert "shut down" in described["SecondaryStatusTransitions"][-1]["StatusMessage"]
    assert laboratory.keys("output/shutdown/") == ["output/shutdown/output/model.tar.gz"]
    assert list((laboratory.home / "containers").iterdir()) == []


def test_a_shutdown_kills_what_does_not_stop(laboratory: Any, training_request: Any) -> None:
    laboratory.call(
        "CreateTrainingJob",
        **training_request(
            "stubborn", AlgorithmSpecification=laboratory.program(
                "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
                "print(os.getpid(), flush=True)\ntime.sleep(60)"
            ),
        ),
    )
    laboratory.until("stubborn", lambda job: bool(laboratory.lines("stubborn")))
    pid = int(laboratory.lines("stubborn")[0])
    laboratory.close(timeout=0.3)

    assert identity.start_time(pid) is None


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


def test_a_deleted_jobs_log_is_not_the_next_ones_of_the_name(laboratory: Any, job: Any) -> None:
    """WIRE-22: the SDK takes the first stream below the name."""
    job("reused", "print('old')")
    laboratory.call("DeleteTrainingJob", TrainingJobName="reused")
    assert laboratory.streams("reused") == {}
    assert [path for path in (laboratory.home / "logs").rglob("*") if path.is_file()] == []
    job("reused", "print('new')")

    assert laboratory.lines("reused") == ["new"]


def test_what_a_server_killed_at_a_jobs_end_left_is_cleared(laboratory: Any, job: Any) -> None:
    """pain 40."""
    job("ended", "(ml / 'model' / 'x').touch()")
    laboratory.close()
    left = laboratory.home / "jobs/training-123456789012-eu-west-1/ended/ml"
    left.mkdir(parents=True)
    laboratory.open()

    assert not left.exists()
