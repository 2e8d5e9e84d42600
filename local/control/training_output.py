"""What a training job leaves in S3: the model, as an archive or file by file, and output data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from byoa.container.contract import MODEL_ARTIFACT, OUTPUT_ARTIFACT, Layout, artifact_uri
from byoa.container.errors import ByoaError
from byoa.local.storage.archives import files_below, pack
from byoa.local.storage.buckets import BucketMissing, Buckets, parse_s3_uri


class UploadError(Exception):
    """Why artifacts cannot be uploaded; the text follows `Artifact upload failed:` (TRAIN-142)."""


def model_uri(request: Mapping[str, Any], job: str) -> str:
    """ModelArtifacts.S3ModelArtifacts: known before the job has run (TRAIN-130, TRAIN-206)."""
    output = request["OutputDataConfig"]
    archive = output["CompressionType"] != "NONE"
    return artifact_uri(output["S3OutputPath"], job, MODEL_ARTIFACT if archive else "model/")


def check_bucket(buckets: Buckets, request: Mapping[str, Any]) -> None:
    """Raise UploadError when the output bucket is not there: better before training than after."""
    bucket, _ = parse_s3_uri(request["OutputDataConfig"]["S3OutputPath"])
    try:
        buckets.require(bucket)
    except BucketMissing as error:
        raise UploadError(str(error)) from None


def upload(
    buckets: Buckets,
    request: Mapping[str, Any],
    job: str,
    layouts: Sequence[Layout],
    workspace: Path,
    *,
    failed: bool,
) -> list[str]:
    """Upload model and output data (TRAIN-130 … TRAIN-134); what had to be left out.

    What the hosts leave is merged; of two files of the same name the first host's stays, which
    SageMaker leaves open (TRAIN-132).
    An empty model directory is an empty archive, but not after a failure (TRAIN-133, TRAIN-137).
    Raises UploadError.
    """
    left_out: list[str] = []
    bucket, key = parse_s3_uri(model_uri(request, job))
    models = [layout.model for layout in layouts]
    data = [layout.output_data for layout in layouts]
    output = artifact_uri(request["OutputDataConfig"]["S3OutputPath"], job, OUTPUT_ARTIFACT)
    try:
        if request["OutputDataConfig"]["CompressionType"] == "NONE":
            for name, path in files_below(*models):
                buckets.put_file(bucket, f"{key}{name}", path)
        elif not failed or _has_files(models):
            left_out += _upload_archive(buckets, bucket, key, models, workspace)
        if _has_files(data):
            bucket, key = parse_s3_uri(output)
            left_out += _upload_archive(buckets, bucket, key, data, workspace)
    except ByoaError as error:
        raise UploadError(str(error)) from None
    except OSError as error:
        raise UploadError(f"{error.strerror}: {error.filename or workspace}") from None
    return left_out


def _upload_archive(
    buckets: Buckets, bucket: str, key: str, directories: Sequence[Path], workspace: Path
) -> tuple[str, ...]:
    archive = workspace / key.rpartition("/")[2]
    packed = pack(directories[0], archive, *directories[1:])
    buckets.put_file(bucket, key, archive, move=True)
    return tuple(f"{directories[0].name}/{each}" for each in packed.left_out)


def _has_files(directories: Sequence[Path]) -> bool:
    there = [each for each in directories if each.is_dir()]
    return bool(there) and any(True for _ in files_below(*there))
