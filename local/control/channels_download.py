"""Input channels: which objects they are, and their copies below /opt/ml/input/data.

    S3Prefix        keys by textual prefix, or the one object that the URI names (TRAIN-91)
    ManifestFile    an object that lists them (TRAIN-111)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from byoa.container.contract import ChannelConfig, InputDataConfig, Layout, dump
from byoa.container.errors import ByoaError
from byoa.local.control.training_request import input_mode
from byoa.local.storage.buckets import Buckets, parse_s3_uri

READ_ONLY = 0o444


class DownloadError(Exception):
    """Why a channel cannot be downloaded; the text follows `Data download failed:` (TRAIN-92)."""


@dataclass(frozen=True)
class Source:
    """One object of a channel and its path below the channel's directory."""

    bucket: str
    key: str
    path: str


@dataclass(frozen=True)
class Share:
    """Which host of a job it is: `rank` of `hosts`, for channels that are divided among them."""

    rank: int = 0
    hosts: int = 1

    def of(self, listed: list[Source]) -> list[Source]:
        """Every host its own objects, by key in turn; the last may get none (TRAIN-100)."""
        ordered = sorted(listed, key=lambda each: (each.bucket, each.key))
        return ordered[self.rank :: self.hosts]


def input_data_config(request: Mapping[str, Any]) -> InputDataConfig:
    """What the container reads about its channels (TRAIN-50)."""
    return InputDataConfig(
        {
            channel["ChannelName"]: ChannelConfig(
                input_mode=input_mode(request, channel),
                distribution=channel["DataSource"]["S3DataSource"]["S3DataDistributionType"],
                record_wrapper=channel["RecordWrapperType"],
                content_type=channel.get("ContentType"),
            )
            for channel in request.get("InputDataConfig", ())
        }
    )


def download(
    buckets: Buckets,
    request: Mapping[str, Any],
    layout: Layout,
    check: Callable[[], None],
    share: Share = Share(),
) -> None:
    """Materialise every channel (TRAIN-90); `check` is called before each object, and may raise.

    FastFile channels are whole before the container starts, too: their files are read-only
    (TRAIN-93). Raises DownloadError.
    """
    for channel in request.get("InputDataConfig", ()):
        name, mode = channel["ChannelName"], input_mode(request, channel)
        directory = layout.channel(name)
        directory.mkdir(parents=True, exist_ok=True)
        source = channel["DataSource"]["S3DataSource"]
        try:
            listed = list(_sources(buckets, source, fast=mode == "FastFile"))
            if source["S3DataDistributionType"] == "ShardedByS3Key":
                listed = share.of(listed)
            for each in listed:
                check()
                target = directory / each.path
                buckets.materialise(each.bucket, each.key, target)
                if mode == "FastFile":
                    target.chmod(READ_ONLY)
        except ByoaError as error:
            raise DownloadError(f"{error} (channel {name!r})") from None
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise DownloadError(
                f"a key of channel {name!r} is both a file and a folder: {error.filename}"
            ) from None
        except OSError as error:
            raise DownloadError(f"{error.strerror} (channel {name!r})") from None
        manifest = [{"prefix": source["S3Uri"]}, *(each.path for each in listed)]
        layout.manifest(name).write_text(dump(manifest), encoding="utf-8")


def _sources(buckets: Buckets, source: Mapping[str, Any], *, fast: bool) -> Iterator[Source]:
    if source["S3DataType"] == "ManifestFile":
        return _listed(buckets, source["S3Uri"])
    return _prefixed(buckets, source["S3Uri"], fast=fast)


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

