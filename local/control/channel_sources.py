"""Which objects a channel has, in what order, and which of them are for one host of the job.

    S3Prefix        keys by textual prefix, or the one object that the URI names (TRAIN-91)
    ManifestFile    an object that lists them (TRAIN-111)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from byoa.local.storage.buckets import Buckets, parse_s3_uri


class DownloadError(Exception):
    """Why a channel cannot be delivered; the text follows `Data download failed:` (TRAIN-92)."""


@dataclass(frozen=True)
class Source:
    """One object of a channel and its path below the channel's directory."""

    bucket: str
    key: str
    path: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True)
class Share:
    """Which host of those that a channel is divided among: `rank` of `hosts`."""

    rank: int = 0
    hosts: int = 1

    @property
    def turns(self) -> slice:
        """A host's own of all entries, in turn; the last host may get none (TRAIN-100)."""
        return slice(self.rank, None, self.hosts)


def sources_of(buckets: Buckets, source: Mapping[str, Any], *, fast: bool = False) -> list[Source]:
    """All objects of an S3DataSource: by key, or as its manifest lists them. Raises DownloadError,
    or ByoaError where there is no such bucket or object.

    `fast`: a FastFile channel's, whose prefix must be a whole folder or file (TRAIN-93).
    """
    if source["S3DataType"] == "ManifestFile":
        return list(_listed(buckets, source["S3Uri"]))
    return list(_prefixed(buckets, source["S3Uri"], fast=fast))


def is_sharded(source: Mapping[str, Any]) -> bool:
    """Whether each host gets objects of its own (TRAIN-100)."""
    return bool(source["S3DataDistributionType"] == "ShardedByS3Key")


def _prefixed(buckets: Buckets, uri: str, *, fast: bool) -> Iterator[Source]:
    bucket, prefix = parse_s3_uri(uri)
    if prefix and not prefix.endswith("/") and buckets.stat(bucket, prefix) is not None:
        yield Source(bucket, prefix, prefix.rpartition("/")[2])
        return
    found = False
    for each in buckets.keys(bucket, prefix):
        rest = each.key[len(prefix):]
        if fast and prefix and not prefix.endswith("/") and not rest.startswith("/"):
            raise DownloadError(
                f"{uri} also matches s3://{bucket}/{each.key}. For FastFile mode, partial S3"
                " prefix is not supported. S3 prefix has to end with a full file or folder. Add a"
                " trailing '/' for a folder"
            )
        if not each.key.endswith("/"):
            found = True
            yield Source(bucket, each.key, _relative(bucket, each.key, rest))
    if not found:
        raise DownloadError(
            f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure'
            " that the bucket exists and that objects exist under that S3 prefix"
        )


def _listed(buckets: Buckets, uri: str) -> Iterator[Source]:
    bucket, key = parse_s3_uri(uri)
    try:
        manifest = json.loads(buckets.path(bucket, key).read_text(encoding="utf-8"))
        prefix = manifest[0]["prefix"]
        entries = manifest[1:]
        valid = isinstance(prefix, str) and all(isinstance(each, str) for each in entries)
    except (ValueError, LookupError, TypeError):
        valid = False
    if not valid:
        raise DownloadError(
            f'{uri} is no manifest: expected a JSON array [{{"prefix": "s3://bucket/path/"}},'
            ' "key", "key"]'
        )
    if not entries:
        raise DownloadError(f"the manifest {uri} lists no objects")
    bucket, start = parse_s3_uri(prefix)
    for entry in entries:
        key = f"{start}{entry}"
        if buckets.stat(bucket, key) is None:
            raise DownloadError(f"the manifest {uri} lists s3://{bucket}/{key}, which is not there")
        yield Source(bucket, key, _relative(bucket, key, entry))


def _relative(bucket: str, key: str, rest: str) -> str:
    parts = [part for part in rest.split("/") if part]
    if not parts or any(part in (".", "..") or "\0" in part for part in parts):
        raise DownloadError(f"s3://{bucket}/{key} has no place below the channel's directory")
    return "/".join(parts)
