"""Model artifacts: where a container definition says they are, and their way to /opt/ml/model.

    ModelDataUrl, ModelDataSource Gzip      a tar.gz, unpacked (HOST-40)
    ModelDataSource None + S3Object         one file, named by the key's last segment (HOST-43)
    ModelDataSource None + S3Prefix         files, named by the key's rest after the prefix
    ModelDataUrl, Mode MultiModel           a prefix of tar.gz, fetched when asked for (MME-02)
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from byoa.container.errors import ByoaError, DataError
from byoa.local.control.unsupported import refused
from byoa.local.errors import ValidationException
from byoa.local.storage.archives import extract
from byoa.local.storage.buckets import Buckets

ARCHIVE, OBJECT, PREFIX, MANY = "archive", "object", "prefix", "many"
_NAME_LIMIT_BYTES = 255
# s3.amazonaws.com, s3.<region>.…, s3-<region>.…, each with the bucket in front or in the path.
_HOST = re.compile(
    r"(?:(?P<bucket>.+)\.)?s3(?:[.-](?:dualstack\.)?[a-z0-9-]+)?\.amazonaws\.com(?:\.cn)?"
)
_SOURCE_REFUSALS = {
    "HubAccessConfig": "copy the model to S3 and name it by S3Uri",
    "ManifestS3Uri": "put the files under one prefix and name it by S3Uri with S3Prefix",
    "ManifestEtag": "put the files under one prefix and name it by S3Uri with S3Prefix",
}


@dataclass(frozen=True)
class ModelData:
    """Where a model's artifacts are and how they are laid out. `etag` must match when given."""

    uri: str
    bucket: str
    key: str
    layout: str  # ARCHIVE, OBJECT, PREFIX or MANY
    etag: str | None = None
    keep: bool = True  # of MANY: ModelCacheSetting Enabled (MME-08)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ModelData:
        return cls(**document)

    def check(self, buckets: Buckets) -> None:
        """Raise ValidationException when it is not there, or not what the request says."""
        try:
            if self.layout == MANY:  # its archives may come later
                buckets.require(self.bucket)
            elif self.layout == PREFIX:
                self._files(buckets)
            else:
                self._object(buckets)
        except ByoaError as error:
            raise ValidationException(f"Could not access model data at {self.uri}. {error}") from (
                error
            )

    def download(self, buckets: Buckets, target: Path) -> None:
        """Put the artifacts into `target`, read-only (HOST-40); raises ByoaError."""
        target.mkdir(parents=True, exist_ok=True)
        if self.layout == MANY:
            return
        if self.layout == PREFIX:
            for name, key in self._files(buckets):
                path = target / name
                path.parent.mkdir(parents=True, exist_ok=True)
                buckets.materialise(self.bucket, key, path)
        else:
            self._object(buckets)
            if self.layout == ARCHIVE:
                extract(buckets.path(self.bucket, self.key), target)
            else:
                buckets.materialise(self.bucket, self.key, target / self.key.rpartition("/")[2])
        make_read_only(target)

    def one(self, target: str) -> ModelData:
        """The artifact of one of many models, by its path below the prefix; raises DataError."""
        _check_names([target])
        key = f"{self.key}{target}"
        return ModelData(f"s3://{self.bucket}/{key}", self.bucket, key, ARCHIVE)

    def _object(self, buckets: Buckets) -> None:
        info = buckets.stat(self.bucket, self.key)
        if info is None:
            raise DataError(
                "MODEL_DATA_MISSING",
                f"there is no object s3://{self.bucket}/{self.key}",
                remedy="upload it first",
            )
        if self.etag is not None and self.etag.strip('"') != info.etag.strip('"'):
            raise DataError(
                "MODEL_DATA_CHANGED",
                f"s3://{self.bucket}/{self.key} has the ETag {info.etag}",
                expected=f"ETag {self.etag}",
            )

    def _files(self, buckets: Buckets) -> list[tuple[str, str]]:
        """Relative names and keys below the prefix, all checked (HOST-44)."""
        found = [
            (info.key[len(self.key) :], info.key) for info in buckets.keys(self.bucket, self.key)
        ]
        if not found:
            raise DataError(
                "MODEL_DATA_MISSING",
                f"nothing is under s3://{self.bucket}/{self.key}",
                remedy="upload the model's files first",
            )
        _check_names(name for name, _ in found)
        return found


def model_data(container: Mapping[str, Any], where: str) -> ModelData | None:
    """The artifacts of a container definition; None when it names none (HOST-41).

    Raises ValidationException for what is not supported or contradicts itself.
    """
    if container.get("Mode") == "MultiModel":
        return _many(container, where)
    url = container.get("ModelDataUrl")
    source = (container.get("ModelDataSource") or {}).get("S3DataSource")
    if url and source:
        raise ValidationException(
            f"{where}: give either ModelDataUrl or ModelDataSource, not both."
        )
    if url:
        bucket, key = locate(url)
        if key.endswith("/") or not key:
            raise ValidationException(
                f"{where}: ModelDataUrl {url} names no object; it names a model.tar.gz, or use"
                " ModelDataSource with S3Prefix and CompressionType None."
            )
        return ModelData(url, bucket, key, ARCHIVE)
    if not source:
        return None
    problems = refused(source, _SOURCE_REFUSALS, f"{where}: ModelDataSource.S3DataSource.")
    if problems:
        raise ValidationException(" ".join(problems))
    uri = source["S3Uri"]
    bucket, key = locate(uri)
    prefix = source["S3DataType"] == "S3Prefix"
    if prefix and source["CompressionType"] == "Gzip":
        raise ValidationException(
            f"{where}: CompressionType Gzip needs S3DataType S3Object, a tar.gz; for files under a"
            " prefix use CompressionType None."
        )
    if prefix != key.endswith("/"):
        raise ValidationException(
            f"{where}: S3Uri {uri} must{'' if prefix else ' not'} end with '/' for S3DataType"
            f" {source['S3DataType']}."
        )
    if prefix and source.get("ETag"):
        raise ValidationException(f"{where}: ETag needs S3DataType S3Object.")
    layout = PREFIX if prefix else ARCHIVE if source["CompressionType"] == "Gzip" else OBJECT
    return ModelData(uri, bucket, key, layout, source.get("ETag"))


def _many(container: Mapping[str, Any], where: str) -> ModelData:
    url = container.get("ModelDataUrl")
    if container.get("ModelDataSource") or not url:
        raise ValidationException(
            f"{where}: Mode MultiModel needs ModelDataUrl, the prefix of the models' archives, and"
            " no ModelDataSource."
        )
    bucket, key = locate(url)
    if key and not key.endswith("/"):
        raise ValidationException(
            f"{where}: ModelDataUrl {url} of a multi-model container must be a prefix that ends"
            " with '/'."
        )
    setting = (container.get("MultiModelConfig") or {}).get("ModelCacheSetting", "Enabled")
    return ModelData(url, bucket, key, MANY, keep=setting == "Enabled")


def locate(url: str) -> tuple[str, str]:
    """Bucket and key of `s3://…` or of any form of S3's https addresses."""
    parts = urlsplit(url)
    if parts.scheme == "s3":
        return parts.netloc, url.partition("://")[2].partition("/")[2]
    match = _HOST.fullmatch(parts.hostname or "")
    path = unquote(parts.path).lstrip("/")
    if match is None:
        raise ValidationException(
            f"{url} is no S3 address; use s3://<bucket>/<key> or"
            " https://<bucket>.s3.<region>.amazonaws.com/<key>."
        )
    if match["bucket"]:
        return match["bucket"], path
    bucket, _, key = path.partition("/")
    return bucket, key


def _check_names(names: Iterable[str]) -> None:
    seen = set(names)
    for name in sorted(seen):
        segments = name.split("/")
        if name.endswith("/") or not name:
            problem = "is a folder placeholder; delete that object"
        elif any(part in ("", ".", "..") for part in segments):
            problem = "has a path segment that is empty, '.' or '..'"
        elif any("\0" in part or len(part.encode()) > _NAME_LIMIT_BYTES for part in segments):
            problem = f"has a path segment with NUL or of more than {_NAME_LIMIT_BYTES} bytes"
        elif any("/".join(segments[:depth]) in seen for depth in range(1, len(segments))):
            problem = "is below a key that is a file itself"
        else:
            continue
        raise DataError("MODEL_DATA_NAME", f"the key {name!r} below the prefix {problem}")


def make_read_only(directory: Path) -> None:
    """Take away the write permission of everything in `directory`, and of itself."""
    for folder, _, files in os.walk(directory):
        for path in (*(os.path.join(folder, name) for name in files), folder):
            if not os.path.islink(path):
                os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) & ~0o222)


def remove_tree(directory: Path) -> None:
    """Remove a directory that may have read-only parts; absent is fine, and so is somebody else's
    removing it at the same time."""
    for folder, _, _ in os.walk(directory):
        with contextlib.suppress(FileNotFoundError):
            os.chmod(folder, 0o700)
    shutil.rmtree(directory, ignore_errors=True)
