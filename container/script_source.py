"""Where a script's code comes from, and how it gets into /opt/ml/code (TK-02, TK-03)."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from byoa.container import contract
from byoa.container.contract import Layout
from byoa.container.errors import AlgorithmError, UnsupportedError
from byoa.container.unpack import unpack

SUBMIT_HYPERPARAMETER = "sagemaker_submit_directory"
SUBMIT_VARIABLE = "SAGEMAKER_SUBMIT_DIRECTORY"
ENDPOINT_VARIABLE = "S3_ENDPOINT_URL"  # TK-08
CONNECT_SECONDS = 10.0  # to S3, three times: without a network nothing answers
ATTEMPTS = 3
FILE_SUFFIXES = (".py", ".sh")  # of a source that is one file


def fetch(source: str, layout: Layout, environ: Mapping[str, str], region: Any = None) -> None:
    """Bring the code into /opt/ml/code unless something is there already (TK-03).

    `source` is an s3:// URI of a tar, a tar, a directory or one file, the last three by their
    paths, which may be a channel's, or as file:// URIs.
    """
    code = layout.code
    code.mkdir(parents=True, exist_ok=True)
    if any(code.iterdir()):
        return
    url = urlsplit(source)
    if url.scheme == "s3":
        with tempfile.TemporaryFile() as file:
            _download(url.netloc, url.path.lstrip("/"), file, environ, region, source)
            file.seek(0)
            _unpack(file, code, source)
        return
    if url.scheme not in ("", "file"):
        raise UnsupportedError(
            "SOURCE_UNSUPPORTED", f"the source {source!r} is fetched by {url.scheme}",
            where=SUBMIT_HYPERPARAMETER,
            expected="an s3:// URI of a sourcedir.tar.gz, a directory or such a file",
            remedy="upload it to S3, or give it as a channel",
        )
    path = layout.inside(unquote(url.path) if url.scheme == "file" else source)
    if path.is_dir():
        if path.resolve() != code.resolve():
            shutil.copytree(path, code, dirs_exist_ok=True)
    elif path.is_file():
        with path.open("rb") as file:
            _unpack(file, code, source)
    else:
        raise AlgorithmError(
            "SOURCE_MISSING", f"the source {source!r} does not exist",
            expected="an s3:// URI of a sourcedir.tar.gz, a directory or such a file",
            remedy=f"set {SUBMIT_HYPERPARAMETER}, or put the code in {contract.ROOT}/code",
        )


def _download(
    bucket: str, key: str, file: Any, environ: Mapping[str, str], region: Any, source: str
) -> None:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3",
        region_name=environ.get("AWS_REGION") or (str(region) if region else None),
        endpoint_url=environ.get(ENDPOINT_VARIABLE) or None,
        config=Config(connect_timeout=CONNECT_SECONDS, retries={"total_max_attempts": ATTEMPTS}),
    )
    try:
        client.download_fileobj(bucket, key, file)
    except (BotoCoreError, ClientError) as error:
        raise AlgorithmError(
            "SOURCE_DOWNLOAD_FAILED", f"{source}: {error}",
            expected="an object that the job's role may read",
            remedy="under network isolation give the code as a channel instead, and"
            f" {SUBMIT_HYPERPARAMETER} as its directory",
        ) from None
    finally:
        client.close()


def _unpack(file: BinaryIO, code: Path, source: str) -> None:
    """Unpack the archive; what is none, but is called as a script is, is one."""
    try:
        with tarfile.open(fileobj=file, mode="r:*") as archive:
            unpack(archive, code)
    except tarfile.TarError as error:
        name = PurePosixPath(unquote(urlsplit(source).path)).name
        if isinstance(error, tarfile.ReadError) and name.endswith(FILE_SUFFIXES):
            file.seek(0)
            with (code / name).open("wb") as copy:
                shutil.copyfileobj(file, copy)
            return
        raise AlgorithmError(
            "SOURCE_INVALID", f"{source} cannot be unpacked: {error}",
            expected="a tar.gz of the source directory's content, or one .py or .sh file",
        ) from None
