"""What a training job leaves in S3: the model, as an archive or file by file, and output data."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byoa.container.contract import (
    MODEL_ARTIFACT,
    OUTPUT_ARTIFACT,
    ROOT,
    DebugHookConfig,
    Layout,
    ProfilerConfig,
    TensorBoardOutputConfig,
    artifact_uri,
)
from byoa.container.errors import ByoaError
from byoa.local.storage.buckets import BucketMissing, Buckets, parse_s3_uri
from byoa.local.storage.object_files import KEY_LIMIT_BYTES
from byoa.local.storage.packing import Survey, open_file, pack, shown, survey

INTERMEDIATE = str(Layout(Path(ROOT)).intermediate)
OBJECT_LIMIT_BYTES = 5 << 40  # S3 has no larger objects

# What is to be stored: bucket, key, file, and whether the file is given away.
_Put = tuple[str, str, Path, bool]


@dataclass(frozen=True)
class Place:
    """A directory of the container that is synced to S3 while the job runs."""

    path: str
    uri: str
    deletes: bool = True


def synced_places(request: Mapping[str, Any], job: str) -> list[Place]:
    """Intermediate output (TRAIN-33), TensorBoard's, the debugger's and the profiler's
    (TRAIN-71 … TRAIN-73). What a program removes from its intermediate output stays in S3, as the
    toolkit has it (TK-13)."""
    output = request["OutputDataConfig"]["S3OutputPath"]
    places = [Place(INTERMEDIATE, artifact_uri(output, job, "intermediate"), deletes=False)]
    for member, path, folder in (
        ("TensorBoardOutputConfig", TensorBoardOutputConfig.defaults["LocalPath"],
         "tensorboard-output"),
        ("DebugHookConfig", DebugHookConfig.defaults["LocalPath"], "debug-output"),
        ("ProfilerConfig", ProfilerConfig.local_path, "profiler-output"),
    ):
        config = request.get(member) or {}
        if config.get("S3OutputPath") and not config.get("DisableProfiler"):
            uri = f"{config['S3OutputPath'].rstrip('/')}/{job}/{folder}"
            places.append(Place(config.get("LocalPath") or path, uri))
    return places


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
    layouts: Mapping[str, Layout],
    workspace: Path,
    *,
    failed: bool,
) -> list[str]:
    """Upload model and output data of the hosts (TRAIN-130 … TRAIN-134); what was left out.

    What the hosts leave is merged; of two files of the same name the first host's stays, which
    SageMaker leaves open (TRAIN-132). An empty model directory is an empty archive, but not after
    a failure (TRAIN-133, TRAIN-137).
    All of it is ready before the first object is stored, and where one cannot be stored none is.
    Raises UploadError.
    """
    left_out: list[str] = []
    puts: list[_Put] = []
    bucket, key = parse_s3_uri(model_uri(request, job))
    models = _real(layouts, lambda layout: layout.model, left_out)
    data = _real(layouts, lambda layout: layout.output_data, left_out)
    try:
        if request["OutputDataConfig"]["CompressionType"] == "NONE":
            puts += _files(bucket, key, survey(models), left_out)
        elif not failed or survey(models).entries:
            puts.append(_archive(bucket, key, models, workspace, left_out))
        if any(survey(data).files()):
            output = artifact_uri(request["OutputDataConfig"]["S3OutputPath"], job, OUTPUT_ARTIFACT)
            puts.append(_archive(*parse_s3_uri(output), data, workspace, left_out))
        _store(buckets, puts)
    except ByoaError as error:
        raise UploadError(str(error)) from None
    except OSError as error:
        where = error.filename or workspace
        raise UploadError(f"{error.strerror or error}: {shown(os.fspath(where))}") from None
    except sqlite3.Error as error:  # of the buckets' index: the disk is full
        raise UploadError(f"{error}: {buckets.root}") from None
    finally:
        for _, _, path, own in puts:
            if own:
                path.unlink(missing_ok=True)
    return left_out


def _real(
    layouts: Mapping[str, Layout], part: Callable[[Layout], Path], left_out: list[str]
) -> dict[str, Path]:
    """The hosts' directories; one in whose place the container put a link would lead anywhere on
    this machine."""
    found = {}
    for host, layout in layouts.items():
        path = part(Layout(layout.root.resolve()))
        if path.resolve() == path:
            found[host] = path
        else:
            name = path.relative_to(layout.root.resolve())
            left_out.append(f"not uploaded: {name} of {host}: replaced by a link")
    return found


def _archive(
    bucket: str, key: str, sources: Mapping[str, Path], workspace: Path, left_out: list[str]
) -> _Put:
    archive = workspace / key.rpartition("/")[2]
    packed = pack(sources, archive)
    left_out += [f"not in {archive.name}: {each}" for each in packed.left_out]
    return bucket, key, archive, True


def _files(bucket: str, prefix: str, found: Survey, left_out: list[str]) -> list[_Put]:
    puts = []
    for entry in found.files():
        key = f"{prefix}{entry.name}"
        try:
            fits = len(key.encode()) <= KEY_LIMIT_BYTES
        except UnicodeEncodeError:
            found.left_out.append(f"{shown(entry.name)}: no UTF-8, as an object's key has to be")
            continue
        if fits:
            os.close(open_file(entry.path.resolve()))  # readable from here on
            puts.append((bucket, key, entry.path, False))
        else:
            found.left_out.append(
                f"{shown(entry.name)}: longer than the {KEY_LIMIT_BYTES:,} bytes of an object's key"
            )
    left_out += [f"not uploaded: {each}" for each in found.left_out]
    return puts


def _store(buckets: Buckets, puts: list[_Put]) -> None:
    for _, key, path, _ in puts:
        size = path.stat().st_size
        if size > OBJECT_LIMIT_BYTES:
            raise UploadError(
                f"{shown(key)} has {size:,} bytes, and an object of S3 at most"
                f" {OBJECT_LIMIT_BYTES:,}"
            )
    stored: list[tuple[str, str]] = []
    try:
        for bucket, key, path, own in puts:
            buckets.put_file(bucket, key, path, move=own)
            stored.append((bucket, key))
    except BaseException:
        for bucket, key in stored:
            with contextlib.suppress(ByoaError, OSError):
                buckets.delete(bucket, key)
        raise
