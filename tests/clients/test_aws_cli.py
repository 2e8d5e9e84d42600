"""The aws CLI, unmodified, with the variables that `byoa env` prints and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

AWS = Path(sys.executable).parent / "aws"


@pytest.fixture
def environment(server: Any, clean_environment: dict[str, str], tmp_path: Path) -> Any:
    printed = server.byoa("env", "--json")
    assert printed.returncode == 0, printed.stderr
    return clean_environment | json.loads(printed.stdout) | {"HOME": str(tmp_path)}


def _aws(environment: dict[str, str], *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(AWS), *argv], env=environment, text=True, capture_output=True,
        timeout=120,
    )


@pytest.mark.both_runners
def test_the_cli_copies_trains_and_describes(
    server: Any, environment: dict[str, str], digits: dict[str, bytes], tmp_path: Path,
    training_request: Any, channel: Any, image: str,
) -> None:
    bucket, job = f"cli-{uuid.uuid4().hex[:8]}", f"cli-{uuid.uuid4().hex[:8]}"
    file = tmp_path / "train.csv"
    file.write_bytes(digits["train"])
    assert _aws(environment, "s3", "mb", f"s3://{bucket}").returncode == 0
    copied = _aws(environment, "s3", "cp", str(file), f"s3://{bucket}/train/train.csv")
    assert copied.returncode == 0, copied.stderr
    back = tmp_path / "back.csv"
    assert _aws(environment, "s3", "cp", f"s3://{bucket}/train/train.csv",
                str(back)).returncode == 0
    assert back.read_bytes() == digits["train"]

    request = training_request(
        job,
        AlgorithmSpecification={"TrainingImage": image, "TrainingInputMode": "File"},
        Environment={"BYOA_ALGORITHM": "nearest-centroid"},
        InputDataConfig=[channel("train", f"s3://{bucket}/train/", ContentType="text/csv")],
        OutputDataConfig={"S3OutputPath": f"s3://{bucket}/out"},
    )
    created = _aws(environment, "sagemaker", "create-training-job", "--cli-input-json",
                   json.dumps(request))
    assert created.returncode == 0, created.stderr
    waited = _aws(environment, "sagemaker", "wait", "training-job-completed-or-stopped",
                  "--training-job-name", job)
    assert waited.returncode == 0, waited.stderr
    described = _aws(environment, "sagemaker", "describe-training-job", "--training-job-name", job)
    answer = json.loads(described.stdout)
    assert answer["TrainingJobStatus"] == "Completed", answer
    listed = _aws(environment, "s3", "ls", "--recursive", f"s3://{bucket}/out/")
    assert f"out/{job}/output/model.tar.gz" in listed.stdout

    missing = _aws(environment, "sagemaker", "describe-training-job", "--training-job-name", "no")
    assert missing.returncode != 0
    assert "Requested resource not found." in missing.stderr


def test_the_region_of_the_generated_config_file_is_found_by_configure(
    environment: dict[str, str],
) -> None:
    """`aws configure get region` reads only the config file, which many notebooks rely on."""
    found = _aws(environment, "configure", "get", "region")
    assert found.stdout.strip() == environment["AWS_DEFAULT_REGION"]
