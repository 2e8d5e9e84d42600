"""What a job leaves: archives and files, failure reasons, logs and metrics."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

pytestmark = pytest.mark.both_runners

MODEL = "(ml / 'model' / 'weights').write_text('w')"


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

    assert laboratory.archive("output/archive/output/model.tar.gz") == {
        "a": None, "a/b": None, "a/b/deep.bin": b"123", "empty": b"",
    }
    assert laboratory.archive("output/archive/output/output.tar.gz") == {"report.json": b"{}"}


def test_an_empty_model_is_an_empty_archive_and_no_output_is_none(
    laboratory: Any, job: Any
) -> None:
    """TRAIN-133."""
    job("nothing", "pass")

    assert laboratory.keys("output/nothing/") == ["output/nothing/output/model.tar.gz"]
    assert laboratory.archive("output/nothing/output/model.tar.gz") == {}
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


@pytest.mark.process_only("no container starts")
def test_a_missing_output_bucket_fails_before_the_program_runs(laboratory: Any, job: Any) -> None:
    described = job("homeless", "print('ran')", OutputDataConfig={"S3OutputPath": "s3://absent/x"})

    assert described["TrainingJobStatus"] == "Failed"
    assert described["FailureReason"].startswith("ClientError: Artifact upload failed:")
    assert "absent" in described["FailureReason"]
    assert laboratory.lines("homeless") == []

def test_a_failure_file_is_the_reason(laboratory: Any, job: Any) -> None:
    """TRAIN-141, TRAIN-142, CHK-34."""
    described = job(
        "reason", f"{MODEL}; (ml / 'output' / 'failure').write_text('no data: é'); sys.exit(3)"
    )

    assert described["TrainingJobStatus"] == described["SecondaryStatus"] == "Failed"
    assert described["FailureReason"] == "AlgorithmError: no data: é, exit code: 3"
    assert laboratory.statuses("reason")[-3:] == ["Training", "Uploading", "Failed"]
    # What there is, is kept (TRAIN-137).
    assert laboratory.archive("output/reason/output/model.tar.gz") == {"weights": b"w"}


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
    assert laboratory.onlooker.left() == []

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

    if laboratory.runner.name == "docker":  # two pipes of the engine, which have no common order
        lines = ["one", "two", *(line for line in lines[1:] if line not in ("one", "two"))]
    assert lines == ["one", "two", "drei: ß", "no newline"]
    name, _, host = stream.partition("/")
    prefix, _, seconds = host.rpartition("-")
    assert (name, prefix) == ("streams", "algo-1")
    assert abs(int(seconds) - described["TrainingStartTime"]) < 60
    mirror = (
        laboratory.home / "logs/123456789012/eu-west-1/aws/sagemaker/TrainingJobs" / stream
    )
    text = mirror.read_text("utf-8")
    if laboratory.runner.name == "docker":
        assert text.count("two\n") == 1
        text = text.replace("two\n", "").replace("one\n", "one\ntwo\n")
        text += "\n"  # the engine's record ends as the program's output does
    assert text == "one\ntwo\ndrei: ß\n\nno newline\n"


def test_a_silent_job_has_no_stream(laboratory: Any, job: Any) -> None:
    """WIRE-41."""
    job("mute", MODEL)

    assert laboratory.streams("mute") == {}


def test_every_line_is_in_the_log_before_the_job_is_completed(laboratory: Any, job: Any) -> None:
    """Clients read the log once more after Completed, and never again."""
    job("many", "for i in range(20000): print('line', i)")

    assert laboratory.lines("many") == [f"line {i}" for i in range(20000)]

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
