"""What a job leaves: archives and files, failure reasons, logs and metrics."""

from __future__ import annotations

import contextlib
import gzip
import re
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from byoa.local.cli import main

pytestmark = pytest.mark.both_runners

MODEL = "(ml / 'model' / 'weights').write_text('w')"


def test_the_archives_are_relative_with_nested_and_empty_files(laboratory: Any, job: Any) -> None:
    """TRAIN-130, TRAIN-131, LOC-02, CHK-33."""
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


def test_what_cannot_be_archived_is_left_out_and_said_in_the_job_s_log(
    laboratory: Any, job: Any
) -> None:
    """TRAIN-136: a link out of the directory would be broken wherever the model is unpacked."""
    described = job(
        "linked",
        f"""
        {MODEL}
        (ml / 'model' / 'passwd').symlink_to('/etc/passwd')
        (ml / 'model' / 'latest').symlink_to('weights')
        os.mkfifo(ml / 'model' / 'pipe')
        (ml / 'output' / 'data' / 'up').symlink_to('../failure')
        (ml / 'output' / 'data' / 'report').touch()
        sys.stdout.write('no newline')
        """,
    )

    assert described["TrainingJobStatus"] == "Completed"
    assert laboratory.archive("output/linked/output/model.tar.gz") == {
        "latest": None, "weights": b"w",
    }
    notes = [
        "byoa: not in model.tar.gz: passwd: a link to /etc/passwd, by an absolute path; copy the"
        " file, or link to it relatively",
        "byoa: not in model.tar.gz: pipe: a pipe",
        "byoa: not in output.tar.gz: up: a link to ../failure, outside the directory; copy the"
        " file, or link to it relatively",
    ]
    assert laboratory.lines("linked") == ["no newline", *notes]
    row = laboratory.state.get("training-job", laboratory.caller, "linked")
    assert [f"byoa: {note}" for note in row.document["notes"]] == notes


def test_a_container_reaches_no_file_of_this_machine_by_links_in_place_of_its_own(
    laboratory: Any, job: Any
) -> None:
    """TRAIN-136, TRAIN-141: what the server reads of a container are the container's own files."""
    secret = laboratory.home / "secret"
    (secret / "data").mkdir(parents=True)
    (secret / "data" / "key").write_text("of this machine")
    (secret / "failure").write_text("of this machine")
    described = job(
        "escape",
        f"""
        for name in ('model', 'checkpoints', 'output/intermediate', 'output/data'):
            path = ml / name
            path.rmdir()
            path.symlink_to('{secret}/data')
        (ml / 'output' / 'failure').symlink_to('{secret}/failure')
        sys.exit(1)
        """,
        CheckpointConfig={"S3Uri": "s3://tests/ck"},
    )

    assert described["FailureReason"] == "AlgorithmError: , exit code: 1"
    assert laboratory.keys() == []
    assert laboratory.lines("escape")[-1].startswith(
        "byoa: algo-1 ended with exit code 1 and left nothing in /opt/ml/output/failure"
    )
    assert sorted(laboratory.lines("escape")[:-1]) == [
        "byoa: not synced: checkpoints: replaced by a link",
        "byoa: not synced: intermediate: replaced by a link",
        "byoa: not uploaded: model of algo-1: replaced by a link",
        "byoa: not uploaded: output/data of algo-1: replaced by a link",
    ]


def test_names_that_no_object_can_have_are_left_out_of_an_uncompressed_model_and_said(
    laboratory: Any, job: Any
) -> None:
    """TRAIN-134."""
    job(
        "odd",
        """
        os.makedirs(ml / 'model' / ('d' * 250) / ('e' * 250) / ('f' * 250) / ('g' * 250))
        (ml / 'model' / ('d' * 250) / ('e' * 250) / ('f' * 250) / ('g' * 250) / 'h').touch()
        open(os.fsencode(ml / 'model') + b'/\\xff', 'w').close()
        (ml / 'model' / 'fine').touch()
        (ml / 'output' / 'data' / 'x').touch()
        open(os.fsencode(ml / 'output' / 'intermediate') + b'/\\xff', 'w').close()
        """,
        OutputDataConfig={"S3OutputPath": "s3://tests/output", "CompressionType": "NONE"},
    )

    assert laboratory.keys("output/odd/") == [
        "output/odd/output/model/fine", "output/odd/output/output.tar.gz",
    ]
    notes = laboratory.lines("odd")
    assert len(notes) == 3
    assert notes[0] == (
        "byoa: not synced: intermediate/\\udcff: no UTF-8, as an object's key has to be"
    )
    assert notes[1].endswith("longer than the 1,024 bytes of an object's key")
    assert notes[2].startswith("byoa: not uploaded: \\udcff: no UTF-8")


def test_intermediate_output_is_in_s3_while_the_job_runs_and_stays_there(
    laboratory: Any, training_request: Any
) -> None:
    """TRAIN-33, TK-13: what the directory's existence promises."""
    specification = laboratory.program(
        """
        assert (ml / 'output' / 'intermediate').is_dir()
        (ml / 'output' / 'intermediate' / 'd').mkdir()
        (ml / 'output' / 'intermediate' / 'd' / 'first').write_text('1')
        while not (ml / 'input' / 'go').exists(): time.sleep(0.02)
        (ml / 'output' / 'intermediate' / 'd' / 'first').unlink()
        (ml / 'output' / 'intermediate' / 'last').write_text('2')
        sys.exit(1)
        """
    )
    laboratory.call(
        "CreateTrainingJob", **training_request("between", AlgorithmSpecification=specification)
    )
    end = time.monotonic() + 30
    while "output/between/output/intermediate/d/first" not in laboratory.keys("output/between"):
        assert time.monotonic() < end, laboratory.describe("between")
        time.sleep(0.05)
    (laboratory.ml("between") / "input" / "go").touch()
    laboratory.wait("between")

    assert laboratory.keys("output/between/") == [
        "output/between/output/intermediate/d/first", "output/between/output/intermediate/last",
    ]


def test_what_debugger_and_profiler_write_is_synced_as_the_request_says(
    laboratory: Any, job: Any
) -> None:
    """TRAIN-71, TRAIN-72, TRAIN-73."""
    source = (
        "for n in ('tensors', 'elsewhere', 'profiler'):\n"
        "    (ml / 'output' / n).mkdir(exist_ok=True); (ml / 'output' / n / 'x').touch()"
    )
    job("debugged", source, DebugHookConfig={"S3OutputPath": "s3://tests/d/"},
        ProfilerConfig={"S3OutputPath": "s3://tests/p"})
    job("chosen", source,
        DebugHookConfig={"S3OutputPath": "s3://tests/d", "LocalPath": "/opt/ml/output/elsewhere"},
        ProfilerConfig={"S3OutputPath": "s3://tests/p", "DisableProfiler": True})

    assert laboratory.keys("d/") == [
        "d/chosen/debug-output/x", "d/debugged/debug-output/x",
    ]
    assert laboratory.keys("p/") == ["p/debugged/profiler-output/x"]


@pytest.fixture
def ended_while_the_upload_cannot_work(
    laboratory: Any, training_request: Any
) -> Callable[..., dict[str, Any]]:
    """Runs a job that leaves 5 MB, in the way of whose upload something is put; Describe."""

    def run(name: str, obstacle: AbstractContextManager[Any], **members: Any) -> dict[str, Any]:
        specification = laboratory.program(
            """
            (ml / 'model' / 'a').write_text('first')
            (ml / 'model' / 'weights').write_bytes(os.urandom(5_000_000))
            print('ready', flush=True)
            while not (ml / 'input' / 'go').exists(): time.sleep(0.02)
            """
        )
        laboratory.call("CreateTrainingJob", **training_request(
            name, AlgorithmSpecification=specification, **members
        ))
        laboratory.until_printed(name, "ready")
        with obstacle:
            (laboratory.ml(name) / "input" / "go").touch()
            return laboratory.wait(name)

    return run


def _kept(laboratory: Any, described: dict[str, Any], name: str) -> None:
    """The job has failed, nothing of it is in S3, its files are where it says, until pruned."""
    job = laboratory.ml(name).parents[1]
    assert described["TrainingJobStatus"] == "Failed"
    assert described["FailureReason"].endswith(
        f"; what the job wrote is kept in {job} until `byoa prune`"
    )
    laboratory.close()
    laboratory.open(start=False)
    assert not [key for key in laboratory.keys() if name in key]
    assert (laboratory.ml(name) / "model" / "weights").stat().st_size == 5_000_000
    assert not list(job.glob("*.tar.gz"))
    pruned = main(["prune", "--home", str(laboratory.home), "--older-than", "0"])
    assert pruned == 0 and not job.exists()


@contextlib.contextmanager
def _without_bucket(laboratory: Any) -> Iterator[None]:
    for key in laboratory.keys():
        laboratory.buckets.delete("tests", key)
    assert laboratory.buckets.remove("tests")
    yield


@contextlib.contextmanager
def _small_files() -> Iterator[None]:
    """Files of this process may have 3 MiB, as on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_bucket_that_is_gone_when_the_job_ends_fails_it_and_its_files_are_kept(
    laboratory: Any, ended_while_the_upload_cannot_work: Any
) -> None:
    """TRAIN-142, TRAIN-143."""
    described = ended_while_the_upload_cannot_work("homeless", _without_bucket(laboratory))

    assert described["FailureReason"].startswith("ClientError: Artifact upload failed:")
    assert "there is no bucket 'tests'" in described["FailureReason"]
    _kept(laboratory, described, "homeless")


@pytest.mark.parametrize("compression", ["GZIP", "NONE"])
def test_a_file_that_cannot_be_written_leaves_nothing_in_s3_and_the_job_s_files_on_disk(
    laboratory: Any, ended_while_the_upload_cannot_work: Any, compression: str
) -> None:
    """TRAIN-142: uncompressed, the first of two files is in S3 when the second does not fit."""
    described = ended_while_the_upload_cannot_work(
        "large", _small_files(),
        OutputDataConfig={"S3OutputPath": "s3://tests/output", "CompressionType": compression},
    )

    assert described["FailureReason"].startswith(
        "ClientError: Artifact upload failed:File too large: "
    )
    _kept(laboratory, described, "large")


def test_a_full_disk_fails_the_upload_and_the_job_s_files_are_kept(
    tmp_path: Path, new_laboratory: Any, training_request: Any
) -> None:
    """TRAIN-142, TRAIN-181."""
    home = tmp_path / "home-0"
    home.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=9m", "tmpfs", str(home)], capture_output=True,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system of a known size: {mounted.stderr.decode().strip()}")
    try:
        laboratory = new_laboratory()
        specification = laboratory.program(
            "(ml / 'model' / 'weights').write_bytes(os.urandom(5_000_000))"
        )
        laboratory.call("CreateTrainingJob", **training_request(
            "full", AlgorithmSpecification=specification
        ))
        described = laboratory.wait("full")

        assert described["FailureReason"].startswith(
            "ClientError: Artifact upload failed:No space left on device: "
        )
        _kept(laboratory, described, "full")
        laboratory.close()
    finally:
        subprocess.run(["umount", "--lazy", str(home)], check=True)


@pytest.mark.process_only("the store's limit, not the runner's")
def test_an_object_beyond_5_tib_is_no_object(
    laboratory: Any, job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("byoa.local.control.training_output.OBJECT_LIMIT_BYTES", 1000)
    described = job("huge", "(ml / 'model' / 'w').write_bytes(os.urandom(5000))")

    assert re.search(
        r"failed:output/huge/output/model.tar.gz has 5,\d+ bytes, and an object of S3 at most"
        r" 1,000; what", described["FailureReason"],
    )
    assert laboratory.keys("output/") == []


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
    """TRAIN-142, TRAIN-143, CHK-34."""
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


def test_a_metric_that_never_matches_is_noted_in_the_job_s_log_with_the_nearest_line(
    laboratory: Any, job: Any
) -> None:
    """TRAIN-190, TRAP-27."""
    described = job(
        "nearest", "print('starting'); print('validation accuracy: 0.91')",
        specification={"MetricDefinitions": [
            {"Name": "accuracy", "Regex": "accuracy=([0-9.]+)"},
            {"Name": "quoted", "Regex": "line: 'validation accuracy: ([0-9.]+)"},
        ]},
    )

    lines = laboratory.lines("nearest")
    assert lines[:2] == ["starting", "validation accuracy: 0.91"]
    assert lines[2].startswith("byoa: metric 'accuracy' (accuracy=([0-9.]+)): 0 matches in 2 lines")
    assert "nearest line: 'validation accuracy: 0.91'" in lines[2]
    assert len(lines) == 4
    assert "FinalMetricDataList" not in described  # what byoa says is searched for no metric
