"""Training jobs end to end: real processes, real buckets, the log service as clients read it."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from typing import Any

import pytest

from byoa.local.errors import ResourceInUse, ValidationException

MODEL = "(ml / 'model' / 'weights').write_text('w')"


def members(data: bytes) -> dict[str, bytes | None]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        return {
            member.name: archive.extractfile(member).read() if member.isfile() else None
            for member in archive
        }


def statuses(described: dict[str, Any]) -> list[str]:
    return [entry["Status"] for entry in described["SecondaryStatusTransitions"]]


def test_a_job_runs_its_program_and_leaves_its_model_in_s3(laboratory: Any, job: Any) -> None:
    """ALG-01, TRAIN-130, TRAIN-140."""
    described = job("first", f"{MODEL}; print('hello from the job')")

    assert described["TrainingJobStatus"] == "Completed"
    assert described["ModelArtifacts"]["S3ModelArtifacts"] == (
        "s3://tests/output/first/output/model.tar.gz"
    )
    assert members(laboratory.get("output/first/output/model.tar.gz")) == {"weights": b"w"}
    assert laboratory.lines("first") == ["hello from the job"]


def test_the_timeline_has_every_status_with_message_and_touching_times(
    laboratory: Any, job: Any
) -> None:
    """TRAIN-202, TRAIN-204, TRAIN-205, FIX-18."""
    described = job("timeline", MODEL)
    entries = described["SecondaryStatusTransitions"]

    assert [(entry["Status"], entry["StatusMessage"]) for entry in entries] == [
        ("Starting", "Preparing the instances for training"),
        ("Downloading", "Downloading the training image"),
        ("Training", "Training image download completed. Training in progress."),
        ("Uploading", "Uploading generated training model"),
        ("Completed", "Training job completed"),
    ]
    for entry, following in zip(entries, entries[1:], strict=False):
        assert entry["EndTime"] == following["StartTime"]
    assert entries[-1]["EndTime"] == entries[-1]["StartTime"] == described["TrainingEndTime"]
    assert (
        described["CreationTime"] <= described["TrainingStartTime"]
        <= described["TrainingEndTime"] <= described["LastModifiedTime"]
    )
    assert described["SecondaryStatus"] == "Completed"
    assert described["TrainingTimeInSeconds"] == described["BillableTimeInSeconds"] == 1


def test_the_container_finds_the_platforms_files_byte_for_byte(
    laboratory: Any, job: Any, channel: Any
) -> None:
    """TRAIN-30, TRAIN-40, TRAIN-50 … TRAIN-52, TRAIN-60, TRAIN-70, CHK-32."""
    laboratory.buckets.put_bytes("tests", "data/a.csv", b"1,2")
    described = job(
        "files",
        """
        for path in sorted((ml / 'input' / 'config').iterdir()):
            print(path.name, path.read_text())
        print(sorted(str(p.relative_to(ml)) for p in ml.rglob('*') if p.is_dir()))
        """,
        HyperParameters={"epochs": "10", "lr": "0.1"},
        InputDataConfig=[
            channel("train", "s3://tests/data/", ContentType="text/csv"),
            channel("other", "s3://tests/data/", InputMode="FastFile"),
        ],
        specification={"MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+)"}]},
        DebugHookConfig={"S3OutputPath": "s3://tests/debug", "CollectionConfigurations": []},
        ProfilerConfig={"DisableProfiler": False},
        CheckpointConfig={"S3Uri": "s3://tests/ckpt/"},
    )
    assert described["TrainingJobStatus"] == "Completed"
    files = dict(line.split(" ", 1) for line in laboratory.lines("files")[:-1])

    assert files["hyperparameters.json"] == '{"epochs":"10","lr":"0.1"}'
    assert files["inputdataconfig.json"] == (
        '{"train":{"ContentType":"text/csv","TrainingInputMode":"File",'
        '"S3DistributionType":"FullyReplicated","RecordWrapperType":"None"},'
        '"other":{"TrainingInputMode":"FastFile",'
        '"S3DistributionType":"FullyReplicated","RecordWrapperType":"None"}}'
    )
    assert files["resourceconfig.json"] == (
        '{"current_host":"algo-1","current_instance_type":"ml.m5.large",'
        '"current_group_name":"homogeneousCluster","hosts":["algo-1"],"instance_groups":'
        '[{"instance_group_name":"homogeneousCluster","instance_type":"ml.m5.large",'
        '"hosts":["algo-1"]}],"network_interface_name":"eth0","topology":null}'
    )
    assert json.loads(files["metric-definition-regex.json"]) == [
        {"Name": "loss", "Regex": "loss=([0-9.]+)"}
    ]
    assert files["checkpointconfig.json"] == (  # FIX-05
        '{"S3Uri":"s3://tests/ckpt/","LocalPath":"/opt/ml/checkpoints"}'
    )
    assert json.loads(files["debughookconfig.json"])["S3OutputPath"] == "s3://tests/debug"
    assert json.loads(files["profilerconfig.json"]) == {"DisableProfiler": False}
    directories = laboratory.lines("files")[-1]
    for name in ("model", "output/data", "code", "input/data/train", "checkpoints"):
        assert f"'{name}'" in directories
    assert "intermediate" not in directories  # TRAIN-33


def test_a_job_without_channels_metrics_or_hyperparameters_has_empty_documents(
    laboratory: Any, job: Any
) -> None:
    """TRAIN-30, TRAIN-40, TRAIN-54."""
    job(
        "empty",
        "for n in ('hyperparameters', 'inputdataconfig', 'metric-definition-regex'):\n"
        "    print((ml / 'input' / 'config' / f'{n}.json').read_bytes())",
    )

    assert laboratory.lines("empty") == ["b'{}'", "b'{}'", "b'[]'"]


def test_hyperparameters_and_environment_survive_exactly(laboratory: Any, job: Any) -> None:
    """TRAIN-40, TRAIN-83: booleans, lists, spaces, quotes, unicode, shell syntax."""
    values = {
        "flag": "True", "quoted": '"text"', "list": "[1, 2]", "spaces": "  a  b ",
        "shell": "$(touch x); `id` && $HOME | > y", "quotes": "it's \"so\" \\n",
        "unicode": "naïve 数 🙂", "empty": "", "newline": "a\nb\tc", "percent": "%s %(a)s {0}",
    }
    described = job(
        "exact",
        "read = json.loads((ml / 'input/config/hyperparameters.json').read_text('utf-8'))\n"
        "env = {k[2:]: v for k, v in os.environ.items() if k.startswith('U_')}\n"
        "print(json.dumps([read, env]))",
        HyperParameters=values,
        Environment={f"U_{name}": value for name, value in values.items()},
    )

    read, environment = json.loads(laboratory.lines("exact")[0])
    assert read == values
    assert environment == values
    assert described["HyperParameters"] == values


def test_the_platforms_variables_are_set_and_win(laboratory: Any, job: Any) -> None:
    """TRAIN-80, TRAIN-81, TRAIN-83; nothing of the server's own environment comes in."""
    described = job(
        "variables",
        "print(json.dumps(dict(os.environ)))",
        Environment={"TRAINING_JOB_NAME": "mine", "SAGEMAKER_BASE_DIR": "/x", "MINE": "kept"},
    )
    found = json.loads(laboratory.lines("variables")[0])

    assert found["TRAINING_JOB_NAME"] == "variables"
    assert found["TRAINING_JOB_ARN"] == described["TrainingJobArn"]
    assert found["AWS_REGION"] == found["AWS_DEFAULT_REGION"] == "eu-west-1"
    assert found["AWS_ENDPOINT_URL"] == "http://127.0.0.1:9"
    assert found["AWS_ACCESS_KEY_ID"]
    assert found["MINE"] == "kept"
    assert found["SAGEMAKER_BASE_DIR"].endswith("/variables/ml")
    assert "PYTEST_CURRENT_TEST" not in found


def test_describe_echoes_the_request_with_the_services_defaults(
    laboratory: Any, job: Any, channel: Any
) -> None:
    """WIRE-12, FIX-18, TRAIN-206; the Python SDK fails without OutputDataConfig.KmsKeyId."""
    laboratory.buckets.put_bytes("tests", "data/a.csv", b"1")
    described = job(
        "echo", MODEL, InputDataConfig=[channel("train", "s3://tests/data/")],
        VpcConfig={"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]},
        OutputDataConfig={"S3OutputPath": "s3://tests/output/"},
        Tags=[{"Key": "team", "Value": "a"}],
        ProfilerConfig={"DisableProfiler": True},
    )

    assert described["OutputDataConfig"]["KmsKeyId"] == ""
    assert described["InputDataConfig"] == [{
        "ChannelName": "train",
        "DataSource": {"S3DataSource": {
            "S3DataType": "S3Prefix", "S3Uri": "s3://tests/data/",
            "S3DataDistributionType": "FullyReplicated",
        }},
        "CompressionType": "None", "RecordWrapperType": "None",
    }]
    assert described["EnableNetworkIsolation"] is False
    assert described["EnableManagedSpotTraining"] is False
    assert described["VpcConfig"] == {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}
    assert described["ProfilingStatus"] == "Disabled"
    assert described["StoppingCondition"] == {"MaxRuntimeInSeconds": 120}
    assert described["TrainingJobArn"] == (
        "arn:aws:sagemaker:eu-west-1:123456789012:training-job/echo"  # WIRE-08
    )
    # A trailing slash is not doubled.
    uri = described["ModelArtifacts"]["S3ModelArtifacts"]
    assert uri == "s3://tests/output/echo/output/model.tar.gz"
    assert laboratory.state.tags(described["TrainingJobArn"]) == {"team": "a"}


def test_a_name_is_taken_until_the_job_is_deleted(
    laboratory: Any, job: Any, training_request: Any
) -> None:
    """WIRE-05, WIRE-06, CHK-36."""
    first = job("again", MODEL)
    with pytest.raises(ResourceInUse) as caught:
        laboratory.call("CreateTrainingJob", **training_request("again"))

    assert caught.value.message == (
        "Job name must be unique within an AWS account and region, and a job with this name already"
        f" exists ({first['TrainingJobArn']})"
    )
    laboratory.call("DeleteTrainingJob", TrainingJobName="again")
    with pytest.raises(ValidationException, match=r"^ValidationException: Requested resource not"):
        laboratory.describe("again")
    assert job("again", MODEL)["TrainingJobStatus"] == "Completed"


def test_an_unknown_job_is_answered_in_the_services_words(laboratory: Any) -> None:
    """TRAIN-154, TRAIN-218, WIRE-05."""
    for operation in ("DescribeTrainingJob", "StopTrainingJob", "DeleteTrainingJob"):
        with pytest.raises(ValidationException) as caught:
            laboratory.call(operation, TrainingJobName="none")
        assert caught.value.message == "Requested resource not found."
    with pytest.raises(ValidationException, match="Could not find job to update with name none"):
        laboratory.call("UpdateTrainingJob", TrainingJobName="none")


def test_an_update_is_refused(laboratory: Any, job: Any) -> None:
    job("fixed", MODEL)
    with pytest.raises(ValidationException, match="submit another job"):
        laboratory.call(
            "UpdateTrainingJob", TrainingJobName="fixed",
            RemoteDebugConfig={"EnableRemoteDebug": True},
        )


def test_the_list_filters_and_orders_ascending(laboratory: Any, job: Any) -> None:
    """WIRE-10, WIRE-11."""
    for name in ("list-a", "list-b"):
        job(name, MODEL)
    job("list-bad", "sys.exit(3)")
    listed = laboratory.call("ListTrainingJobs", NameContains="list-")["TrainingJobSummaries"]

    assert [entry["TrainingJobName"] for entry in listed] == ["list-a", "list-b", "list-bad"]
    assert set(listed[0]) == {
        "TrainingJobName", "TrainingJobArn", "CreationTime", "LastModifiedTime",
        "TrainingEndTime", "TrainingJobStatus", "SecondaryStatus",
    }
    failed = laboratory.call("ListTrainingJobs", StatusEquals="Failed")["TrainingJobSummaries"]
    assert [entry["TrainingJobName"] for entry in failed] == ["list-bad"]
    assert laboratory.call("ListTrainingJobs", WarmPoolStatusEquals="InUse") == {
        "TrainingJobSummaries": []
    }


# --- output ---------------------------------------------------------------------------------------


def test_the_archives_are_relative_with_nested_and_empty_files(laboratory: Any, job: Any) -> None:
    """TRAIN-130, TRAIN-131, CHK-33."""
    job(
        "archive",
        """
        (ml / 'model' / 'a' / 'b').mkdir(parents=True)
        (ml / 'model' / 'a' / 'b' / 'deep.bin').write_bytes(b'123')
        (ml / 'model' / 'empty').touch()
        (ml / 'output' / 'data' / 'report.json').write_text('{}')
        """,
    )

    assert members(laboratory.get("output/archive/output/model.tar.gz")) == {
        "a": None, "a/b": None, "a/b/deep.bin": b"123", "empty": b"",
    }
    assert members(laboratory.get("output/archive/output/output.tar.gz")) == {"report.json": b"{}"}


def test_an_empty_model_is_an_empty_archive_and_no_output_is_none(
    laboratory: Any, job: Any
) -> None:
    """TRAIN-133."""
    job("nothing", "pass")

    assert laboratory.keys("output/nothing/") == ["output/nothing/output/model.tar.gz"]
    assert members(laboratory.get("output/nothing/output/model.tar.gz")) == {}
    gzip.decompress(laboratory.get("output/nothing/output/model.tar.gz"))


def test_without_compression_the_model_is_files_under_a_prefix(laboratory: Any, job: Any) -> None:
    """TRAIN-134."""
    described = job(
        "plain", f"{MODEL}; (ml/'model'/'d').mkdir(); (ml/'model'/'d'/'x').write_text('1')",
        OutputDataConfig={"S3OutputPath": "s3://tests/output", "CompressionType": "NONE"},
    )

    assert described["ModelArtifacts"]["S3ModelArtifacts"] == (
        "s3://tests/output/plain/output/model/"
    )
    assert laboratory.keys("output/plain/") == [
        "output/plain/output/model/d/x", "output/plain/output/model/weights",
    ]


def test_a_link_out_of_the_model_directory_fails_the_upload(laboratory: Any, job: Any) -> None:
    """TRAIN-136: it would be broken wherever the model is unpacked."""
    described = job("linked", "(ml / 'model' / 'passwd').symlink_to('/etc/passwd')")

    assert described["TrainingJobStatus"] == "Failed"
    assert described["FailureReason"].startswith(
        "ClientError: Artifact upload failed:passwd links to /etc/passwd"
    )


def test_a_missing_output_bucket_fails_before_the_program_runs(laboratory: Any, job: Any) -> None:
    described = job("homeless", "print('ran')", OutputDataConfig={"S3OutputPath": "s3://absent/x"})

    assert described["TrainingJobStatus"] == "Failed"
    assert described["FailureReason"].startswith("ClientError: Artifact upload failed:")
    assert "absent" in described["FailureReason"]
    assert laboratory.lines("homeless") == []


# --- failure --------------------------------------------------------------------------------------


def test_a_failure_file_is_the_reason(laboratory: Any, job: Any) -> None:
    """TRAIN-141, TRAIN-142, CHK-34."""
    described = job(
        "reason", f"{MODEL}; (ml / 'output' / 'failure').write_text('no data: é'); sys.exit(3)"
    )

    assert described["TrainingJobStatus"] == described["SecondaryStatus"] == "Failed"
    assert described["FailureReason"] == "AlgorithmError: no data: é, exit code: 3"
    assert statuses(described)[-3:] == ["Training", "Uploading", "Failed"]
    # What there is, is kept (TRAIN-137).
    assert members(laboratory.get("output/reason/output/model.tar.gz")) == {"weights": b"w"}


def test_without_a_failure_file_the_exit_code_is_the_reason(laboratory: Any, job: Any) -> None:
    """TRAIN-142, CHK-34."""
    described = job("silent", "sys.exit(1)")

    assert described["FailureReason"] == "AlgorithmError: , exit code: 1"
    assert laboratory.keys("output/silent/") == []


def test_a_long_failure_is_cut_to_1024_characters(laboratory: Any, job: Any) -> None:
    """TRAIN-141, CHK-34."""
    described = job("long", "(ml / 'output' / 'failure').write_text('x' * 3000); sys.exit(1)")

    assert len(described["FailureReason"]) == 1024
    assert described["FailureReason"].endswith(", exit code: 1")


def test_a_failure_file_with_exit_code_0_is_completed(laboratory: Any, job: Any) -> None:
    """TRAIN-141."""
    described = job("fine", "(ml / 'output' / 'failure').write_text('ignored')")

    assert described["TrainingJobStatus"] == "Completed"
    assert "FailureReason" not in described


def test_a_program_that_does_not_exist_is_exit_code_127(laboratory: Any, job: Any) -> None:
    """TRAIN-144, TRAP-01."""
    described = job("absent", "", specification={"ContainerEntrypoint": ["/no/such/program"]})

    assert described["FailureReason"] == "AlgorithmError: , exit code: 127"
    assert "/no/such/program" in laboratory.lines("absent")[0]


def test_a_failed_job_keeps_its_files_without_the_input_data_and_others_nothing(
    laboratory: Any, job: Any, channel: Any
) -> None:
    laboratory.buckets.put_bytes("tests", "data/a.csv", b"1")
    channels = [channel("train", "s3://tests/data/")]
    job("kept", "(ml / 'model' / 'partial').touch(); sys.exit(1)", InputDataConfig=channels)
    job("gone", MODEL, InputDataConfig=channels)
    laboratory.close()
    kept = sorted(path.name for path in (laboratory.home / "jobs").rglob("*"))

    assert "partial" in kept and "hyperparameters.json" in kept
    assert "a.csv" not in kept and "gone" not in kept
    assert list((laboratory.home / "containers").iterdir()) == []


# --- logs -----------------------------------------------------------------------------------------


def test_stdout_and_stderr_are_one_stream_with_the_contracts_name(
    laboratory: Any, job: Any
) -> None:
    """WIRE-40 … WIRE-42, CHK-45."""
    described = job(
        "streams",
        "print('one', flush=True); print('two', file=sys.stderr, flush=True); print('drei: ß');"
        "print(); sys.stdout.write('no newline')",
    )
    (stream, lines), = laboratory.streams("streams").items()

    assert lines == ["one", "two", "drei: ß", "no newline"]
    name, _, host = stream.partition("/")
    prefix, _, seconds = host.rpartition("-")
    assert (name, prefix) == ("streams", "algo-1")
    assert abs(int(seconds) - described["TrainingStartTime"]) < 60
    mirror = (
        laboratory.home / "logs/123456789012/eu-west-1/aws/sagemaker/TrainingJobs" / stream
    )
    assert mirror.read_text("utf-8") == "one\ntwo\ndrei: ß\n\nno newline\n"


def test_a_silent_job_has_no_stream(laboratory: Any, job: Any) -> None:
    """WIRE-41."""
    job("mute", MODEL)

    assert laboratory.streams("mute") == {}


def test_every_line_is_in_the_log_before_the_job_is_completed(laboratory: Any, job: Any) -> None:
    """Clients read the log once more after Completed, and never again."""
    job("many", "for i in range(20000): print('line', i)")

    assert laboratory.lines("many") == [f"line {i}" for i in range(20000)]


# --- metrics --------------------------------------------------------------------------------------


def test_metrics_are_scraped_from_the_log_and_put_into_cloudwatch(
    laboratory: Any, job: Any
) -> None:
    """TRAIN-190 … TRAIN-192."""
    described = job(
        "metrics",
        "for i in range(3): print(f'epoch {i}: loss={1 / (i + 1):.3f} acc={i}e-1')",
        specification={"MetricDefinitions": [
            {"Name": "train:loss", "Regex": "loss=([0-9.]+)"},
            {"Name": "train:acc", "Regex": "acc=([0-9e.-]+)"},
            {"Name": "absent", "Regex": "nothing=([0-9.]+)"},
        ]},
    )
    final = {each["MetricName"]: each["Value"] for each in described["FinalMetricDataList"]}

    assert final == {"train:loss": 0.333, "train:acc": 0.2}
    backend = laboratory.metrics._moto.backend("cloudwatch", "eu-west-1")
    found = {
        (datum.name, dimension.name, dimension.value, datum.value)
        for datum in backend.metric_data
        for dimension in datum.dimensions
        if datum.namespace == "/aws/sagemaker/TrainingJobs" and "metrics" in dimension.value
    }
    assert ("train:loss", "TrainingJobName", "metrics", 0.333) in found
    assert ("train:loss", "TrainingJobName", "metrics", 1.0) in found
    assert ("train:acc", "Host", "metrics/algo-1", 0.2) in found


def test_a_metric_that_never_matches_is_noted_with_the_nearest_line(
    laboratory: Any, job: Any, caplog: pytest.LogCaptureFixture
) -> None:
    job(
        "nearest", "print('starting'); print('validation accuracy: 0.91')",
        specification={"MetricDefinitions": [
            {"Name": "accuracy", "Regex": "accuracy=([0-9.]+)"}
        ]},
    )

    assert "0 matches in 2 lines; nearest line: 'validation accuracy: 0.91'" in caplog.text


# --- stopping -------------------------------------------------------------------------------------

PATIENT = """
def stop(number, frame):
    (ml / 'model' / 'saved').write_text('partial')
    print('stopping', flush=True)
    sys.exit(7)
signal.signal(signal.SIGTERM, stop)
print('ready', flush=True)
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
    assert laboratory.call("StopTrainingJob", TrainingJobName="stopped") == {}
    assert laboratory.describe("stopped")["TrainingJobStatus"] in ("Stopping", "Stopped")
    described = laboratory.wait("stopped")

    assert described["TrainingJobStatus"] == described["SecondaryStatus"] == "Stopped"
    assert "FailureReason" not in described
    assert statuses(described)[-4:] == ["Training", "Stopping", "Uploading", "Stopped"]
    assert laboratory.lines("stopped") == ["ready", "stopping"]
    assert members(laboratory.get("output/stopped/output/model.tar.gz")) == {"saved": b"partial"}


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
    assert members(laboratory.get("output/stubborn/output/model.tar.gz")) == {"kept": b""}


def test_an_ended_job_cannot_be_stopped(laboratory: Any, job: Any) -> None:
    """TRAIN-154, WIRE-06."""
    job("over", "sys.exit(1)")
    with pytest.raises(ValidationException) as caught:
        laboratory.call("StopTrainingJob", TrainingJobName="over")

    assert caught.value.message == (
        "The request was rejected because the training job is in status Failed."
    )


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
    described = laboratory.wait("early")

    assert statuses(described) == ["Starting", "Downloading", "Stopping", "Stopped"]
    assert laboratory.lines("early") == []
    assert laboratory.keys("output/early/") == []


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
                    f"open({str(laboratory.home)!r} + '/{name}', 'w').close()\n"
                    f"other = {str(laboratory.home)!r} + '/"
                    f"{'right' if name == 'left' else 'left'}'\n"
                    "end = time.monotonic() + 20\n"
                    "while not os.path.exists(other) and time.monotonic() < end:\n"
                    "    time.sleep(0.01)\n"
                    "sys.exit(0 if os.path.exists(other) else 1)"
                ),
            ),
        )

    assert laboratory.wait("left")["TrainingJobStatus"] == "Completed"
    assert laboratory.wait("right")["TrainingJobStatus"] == "Completed"


def test_nothing_is_run_after_close(laboratory: Any, training_request: Any) -> None:
    laboratory.training.close()
    with pytest.raises(Exception, match="shut down"):
        laboratory.call(
            "CreateTrainingJob",
            **training_request("late", AlgorithmSpecification=laboratory.program("pass")),
        )
