"""File and FastFile channels: whole below /opt/ml/input/data before the container starts.

A File channel is the job's own: copies, which it may write to. A FastFile channel's files are
second names of the objects' own, in a directory beside /opt/ml which the container is shown and
cannot change; where no such directory can be shown they are copies, too (TRAIN-93). Objects are
replaced, never written in place, so that neither changes while the job runs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from byoa.container.contract import ChannelConfig, InputDataConfig, Layout, dump
from byoa.container.errors import ByoaError
from byoa.local.control.channel_sources import (
    DownloadError,
    Share,
    Source,
    is_sharded,
    sources_of,
)
from byoa.local.control.training_request import input_mode
from byoa.local.storage.buckets import Buckets

READ_ONLY = 0o444


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
    share: Callable[[Mapping[str, Any]], Share],
    *,
    shown: bool = False,
) -> None:
    """Materialise every File and FastFile channel (TRAIN-90); `check` is called before each object,
    and may raise. Raises DownloadError.

    `shown`: the container can be shown the directories of `read_only_channels`.
    """
    for channel in request.get("InputDataConfig", ()):
        name, mode = channel["ChannelName"], input_mode(request, channel)
        if mode == "Pipe":
            continue
        directory = layout.channel(name)
        directory.mkdir(parents=True, exist_ok=True)
        if mode == "FastFile" and shown:
            directory = _beside(layout, name)
            directory.mkdir(parents=True, exist_ok=True)
        source = channel["DataSource"]["S3DataSource"]
        try:
            listed = sources_of(buckets, source, fast=mode == "FastFile")
            if is_sharded(source):
                listed = listed[share(channel).turns]
            for each in listed:
                check()
                _place(buckets, each, directory / each.path, mode, shown=shown)
        except ByoaError as error:
            raise DownloadError(f"{error} (channel {name!r})") from None
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise DownloadError(
                f"a key of channel {name!r} is both a file and a folder: {error.filename}"
            ) from None
        except OSError as error:
            raise DownloadError(f"{error.strerror} (channel {name!r})") from None
        write_manifest(layout, channel, (each.path for each in listed))


def read_only_channels(request: Mapping[str, Any], layout: Layout) -> dict[Path, Path]:
    """The FastFile channels that the container is to be shown: where, below its /opt/ml as it is
    on this machine, and what."""
    return {
        layout.channel(channel["ChannelName"]): beside
        for channel in request.get("InputDataConfig", ())
        if (beside := _beside(layout, channel["ChannelName"])).is_dir()
    }


def write_manifest(layout: Layout, channel: Mapping[str, Any], paths: Iterable[str]) -> None:
    """The file that the service leaves beside a channel (TRAIN-31)."""
    uri = channel["DataSource"]["S3DataSource"]["S3Uri"]
    layout.manifest(channel["ChannelName"]).write_text(
        dump([{"prefix": uri}, *paths]), encoding="utf-8"
    )


def remove_input(layout: Layout) -> None:
    """Remove an ended host's input data, and what is kept about it beside /opt/ml."""
    for directory in (layout.data, _beside(layout, ""), pipe_records(layout)):
        shutil.rmtree(directory, ignore_errors=True)


def pipe_records(layout: Layout) -> Path:
    """Where it is written down how far Pipe channels have come; no container writes there."""
    return layout.root.with_name("pipes")


def _place(buckets: Buckets, source: Source, target: Path, mode: str, *, shown: bool) -> None:
    if mode == "FastFile" and shown and buckets.link(source.bucket, source.key, target):
        return
    buckets.materialise(source.bucket, source.key, target)
    if mode == "FastFile":
        target.chmod(READ_ONLY)


def _beside(layout: Layout, channel: str) -> Path:
    return layout.root.with_name("fast") / channel
