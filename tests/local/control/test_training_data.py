"""Channels in and checkpoints both ways, as a program in the container sees them."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = pytest.mark.both_runners

TREE = """
def tree(path):
    return {str(p.relative_to(path)): p.read_text() for p in sorted(path.rglob('*')) if p.is_file()}
print(json.dumps({c.name: tree(c) for c in (ml / 'input/data').iterdir() if c.is_dir()}))
"""


@pytest.fixture
def put(laboratory: Any) -> Any:
    def put(**objects: str) -> None:
        for key, text in objects.items():
            laboratory.buckets.put_bytes("tests", key.replace("__", "/"), text.encode())

    return put


def seen(laboratory: Any, name: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(laboratory.lines(name)[-1])
    return found


def test_keys_below_a_prefix_keep_their_structure(
    laboratory: Any, job: Any, channel: Any, put: Any
) -> None:
    """TRAIN-90, TRAIN-91: the prefix is removed, markers are skipped, the match is textual."""
    put(d__train__a="1", d__train__sub__b="2", **{"d__train-old__c": "3", "d__train__": ""})
    job(
        "prefix", TREE,
        InputDataConfig=[
            channel("folder", "s3://tests/d/train/"),
            channel("text", "s3://tests/d/train"),
            channel("one", "s3://tests/d/train/sub/b"),
            channel("sharded", "s3://tests/d/train/", DataSource={"S3DataSource": {
                "S3DataType": "S3Prefix", "S3Uri": "s3://tests/d/train/",
                "S3DataDistributionType": "ShardedByS3Key"}}),
        ],
    )

    assert seen(laboratory, "prefix") == {
        "folder": {"a": "1", "sub/b": "2"},
        "text": {"a": "1", "sub/b": "2", "-old/c": "3"},
        "one": {"b": "2"},
        "sharded": {"a": "1", "sub/b": "2"},
    }


@pytest.mark.process_only("it is about what is copied, and not about who reads it")
def test_a_whole_bucket_may_be_a_channel(laboratory: Any, job: Any, channel: Any) -> None:
    laboratory.buckets.create("whole")
    laboratory.buckets.put_bytes("whole", "x/y", b"1")
    job("whole", TREE, InputDataConfig=[channel("all", "s3://whole")])

    assert seen(laboratory, "whole") == {"all": {"x/y": "1"}}


def test_a_manifest_lists_the_objects(laboratory: Any, job: Any, put: Any) -> None:
    """TRAIN-110, TRAIN-111, TRAIN-112, FIX-06."""
    put(d__a__1="one", d__a__2="two", d__b="no")
    laboratory.buckets.put_bytes(
        "tests", "manifest", b'[{"prefix":"s3://tests/d/"},"a/1","a/2"]'
    )
    source = {"S3DataType": "ManifestFile", "S3Uri": "s3://tests/manifest"}
    job(
        "manifest", TREE,
        InputDataConfig=[{"ChannelName": "m", "DataSource": {"S3DataSource": source}}],
    )

    assert seen(laboratory, "manifest") == {"m": {"a/1": "one", "a/2": "two"}}


@pytest.mark.process_only("no container starts")
@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        (b"{}", "is no manifest"),
        (b"not json", "is no manifest"),
        (b"[]", "is no manifest"),
        (b'["a"]', "is no manifest"),
        (b'[{"prefix":"s3://tests/d/"},1]', "is no manifest"),
        (b'[{"prefix":"s3://tests/d/"}]', "lists no objects"),
        (b'[{"prefix":"https://x"},"a"]', "is no S3 URI"),
        (b'[{"prefix":"s3://tests/d/"},"none"]', "s3://tests/d/none, which is not there"),
    ],
)
def test_a_malformed_manifest_fails_the_job(
    laboratory: Any, job: Any, manifest: bytes, reason: str
) -> None:
    """TRAIN-111."""
    laboratory.buckets.put_bytes("tests", "manifest", manifest)
    source = {"S3DataType": "ManifestFile", "S3Uri": "s3://tests/manifest"}
    described = job(
        "malformed", TREE,
        InputDataConfig=[{"ChannelName": "m", "DataSource": {"S3DataSource": source}}],
    )

    assert described["FailureReason"].startswith("ClientError: Data download failed:")
    assert reason in described["FailureReason"]
    assert laboratory.lines("malformed") == []


@pytest.mark.process_only("no container starts")
@pytest.mark.parametrize("uri", ["s3://tests/none/", "s3://no-such-bucket/x"])
def test_nothing_under_the_prefix_fails_while_downloading(
    laboratory: Any, job: Any, channel: Any, uri: str
) -> None:
    """TRAIN-92."""
    described = job("nothing", TREE, InputDataConfig=[channel("train", uri)])

    assert described["TrainingJobStatus"] == "Failed"
    assert described["FailureReason"].startswith("ClientError: Data download failed:")
    assert uri.split("/")[2] in described["FailureReason"]
    statuses = [entry["Status"] for entry in described["SecondaryStatusTransitions"]]
    assert statuses == ["Starting", "Downloading", "Failed"]


def test_a_fastfile_prefix_must_be_a_whole_folder_or_file(
    laboratory: Any, job: Any, channel: Any, put: Any
) -> None:
    """TRAIN-93."""
    put(d__train__a="1", **{"d__train-baseline__b": "2"})
    described = job(
        "partial", TREE,
        InputDataConfig=[channel("train", "s3://tests/d/train", InputMode="FastFile")],
    )
    assert "partial S3 prefix is not supported" in described["FailureReason"]
    job(
        "whole", TREE,
        InputDataConfig=[channel("train", "s3://tests/d/train/", InputMode="FastFile")],
    )
    assert seen(laboratory, "whole") == {"train": {"a": "1"}}


def test_a_program_that_writes_to_its_input_does_not_change_the_bucket(
    laboratory: Any, job: Any, channel: Any, put: Any
) -> None:
    put(d__a="original")
    job(
        "vandal",
        "for p in (ml / 'input/data').glob('*/a'):\n"
        "    os.chmod(p, 0o644); p.write_text('changed')",
        InputDataConfig=[
            channel("file", "s3://tests/d/"),
            channel("fast", "s3://tests/d/", InputMode="FastFile"),
        ],
    )

    assert laboratory.get("d/a") == b"original"


@pytest.mark.process_only("no container starts")
def test_a_key_that_would_leave_the_channel_is_refused(
    laboratory: Any, job: Any, channel: Any
) -> None:
    laboratory.buckets.put_bytes("tests", "d/../../evil", b"x")
    described = job("evil", TREE, InputDataConfig=[channel("train", "s3://tests/d/")])

    assert "has no place below the channel's directory" in described["FailureReason"]


def test_each_channel_has_a_manifest_file_beside_it(
    laboratory: Any, job: Any, channel: Any, put: Any
) -> None:
    """TRAIN-30, TRAIN-31: who lists input/data finds more than the channels."""
    put(d__a="1")
    job(
        "beside", "print(sorted(p.name for p in (ml / 'input/data').iterdir()))",
        InputDataConfig=[channel("train", "s3://tests/d/")],
    )

    assert laboratory.lines("beside") == ["['train', 'train-manifest']"]


# --- checkpoints ----------------------------------------------------------------------------------


def test_checkpoints_are_restored_and_uploaded(laboratory: Any, job: Any, put: Any) -> None:
    """TRAIN-170, TRAIN-171, TRAIN-173, TRAIN-175, CHK-44."""
    put(ck__old__1="one", ck__gone="x", **{"ckother": "no"})
    described = job(
        "checkpoints",
        """
        here = ml / 'checkpoints'
        print(sorted(str(p.relative_to(here)) for p in here.rglob('*') if p.is_file()))
        (here / 'gone').unlink()
        (here / 'new').mkdir(); (here / 'new' / '2').write_text('two')
        (here / 'x.sagemaker-ignore').touch(); (here / 'y.sagemaker-uploading').touch()
        """,
        CheckpointConfig={"S3Uri": "s3://tests/ck"},
    )

    assert laboratory.lines("checkpoints") == ["['gone', 'old/1']"]
    assert laboratory.keys("ck") == ["ck/new/2", "ck/old/1", "ckother"]
    assert described["CheckpointConfig"] == {
        "S3Uri": "s3://tests/ck", "LocalPath": "/opt/ml/checkpoints",
    }


def test_checkpoints_go_up_while_the_job_runs_and_its_stop_keeps_them(
    laboratory: Any, training_request: Any
) -> None:
    """TRAIN-171: a job that is killed resumes from what it had written."""
    laboratory.call(
        "CreateTrainingJob",
        **training_request(
            "running",
            AlgorithmSpecification=laboratory.program(
                "(ml / 'here').mkdir(exist_ok=True); (ml / 'here' / '1').write_text('one')\n"
                "print('ready', flush=True); time.sleep(60)"
            ),
            CheckpointConfig={"S3Uri": "s3://tests/ck/", "LocalPath": "/opt/ml/here"},
        ),
    )
    laboratory.until("running", lambda job: "ck/1" in laboratory.keys("ck/"))
    assert laboratory.describe("running")["TrainingJobStatus"] == "InProgress"
    laboratory.call("StopTrainingJob", TrainingJobName="running")
    laboratory.wait("running")

    assert laboratory.get("ck/1") == b"one"


def test_tensorboard_files_are_uploaded(laboratory: Any, job: Any) -> None:
    """TRAIN-72."""
    job(
        "board", "(ml / 'output/tensorboard/events.out').write_text('e')",
        TensorBoardOutputConfig={"S3OutputPath": "s3://tests/tb"},
    )

    assert laboratory.keys("tb") == ["tb/board/tensorboard-output/events.out"]
