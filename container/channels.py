"""Training channels: a channel's files, and their records as one batch.

Channels come from inputdataconfig.json, never from listing the data directory (TRAIN-31).
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from byoa.container.contract import (
    CHECKPOINT_IGNORED_SUFFIXES,
    ChannelConfig,
    InputDataConfig,
    Layout,
)
from byoa.container.errors import DataError, UnsupportedError
from byoa.container.formats import registry
from byoa.container.formats.base import Batch, Format, widen
from byoa.container.media_types import MediaType, parse_media_type

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Channel", "open_channels"]

# Spark and Hadoop leave an empty file of this name beside their part files.
_MARKERS = frozenset({"_SUCCESS"})
_GZIP_SUFFIX = ".gz"


@dataclass(frozen=True)
class Channel:
    """One channel of a training job. File and FastFile channels are both directories."""

    name: str
    config: ChannelConfig
    directory: Path

    def files(self) -> list[Path]:
        """The data files below the directory, sorted by path.

        Left out are hidden files and directories, the platform's markers (TRAIN-173), the
        channel's manifest (TRAIN-31) and Spark's _SUCCESS. Raises UnsupportedError for a Pipe
        channel, DataError CHANNEL_EMPTY where there is no file.
        """
        if self.config.input_mode == "Pipe":
            raise UnsupportedError(
                "PIPE_UNSUPPORTED", f"channel {self.name!r} is in Pipe mode",
                expected="TrainingInputMode File or FastFile",
                remedy="use FastFile, which streams from S3 as well and needs no change of code",
            )
        found = sorted(path for path in self.directory.rglob("*") if self._is_data(path))
        if not found:
            why = "holds no data file" if self.directory.is_dir() else "does not exist"
            raise self._empty(f"its directory {self.directory} {why}")
        return found

    def load(self, *, label_size: int | None = None) -> Batch:
        """The whole channel as float32 features (records, columns) and labels, files in order.

        The format is the channel's ContentType, else each file's suffix; `.gz` is decompressed.
        The leading column of CSV, npy and bare JSON arrays is the label (TRAIN-125) unless
        ContentType says otherwise, as `text/csv;label_size=0`, or `label_size` is given; formats
        that name their labels need neither. Raises DataError, naming file and record.
        """
        given = label_size
        batches: list[tuple[str, Format, Batch]] = []
        settled: dict[str, MediaType | None] = {}
        for path in self.files():
            name = f"{self.name}/{path.relative_to(self.directory).as_posix()}"
            format_, media = self._format(path, name)
            data = _read(path, name)
            if not data:
                continue  # a writer's empty partition: no record, no fault
            if given is not None and media is not None and "label_size" in media.parameters:
                media = MediaType(media.type, media.subtype, {
                    key: value for key, value in media.parameters.items() if key != "label_size"
                })
            size = 1 if given is None else given
            media = settled.get(format_.name, media)
            batch = format_.decode(data, media, label_size=size, where=name)
            batches.append((name, format_, batch))
            if format_.name not in settled:
                settled[format_.name] = format_.settled(data, media)
        if not batches:
            raise self._empty("its files are empty")
        width = max(_width(batch.features) for _, _, batch in batches)
        return _concatenate([
            (name, widen(batch, width) if format_.open_ended else batch)
            for name, format_, batch in batches
        ])

    def _is_data(self, path: Path) -> bool:
        relative = path.relative_to(self.directory)
        return not (
            any(part.startswith(".") for part in relative.parts)
            or path.name.endswith(CHECKPOINT_IGNORED_SUFFIXES)
            or path.name in _MARKERS
            or relative.as_posix() == f"{self.name}-manifest"
        ) and path.is_file()

    def _format(self, path: Path, name: str) -> tuple[Format, MediaType | None]:
        if self.config.content_type:
            media = parse_media_type(self.config.content_type)
            return registry.find(media), media
        suffixes = [suffix.lower() for suffix in path.suffixes]
        if suffixes[-1:] == [_GZIP_SUFFIX]:
            suffixes.pop()
        found = registry.by_suffix(suffixes[-1]) if suffixes else None
        if found is None:
            known = "; ".join(
                f"{', '.join(each.suffixes)} ({each.media_types[0]})" for each in registry.all()
            )
            raise DataError(
                "FORMAT_UNKNOWN",
                "the channel has no ContentType and the file's suffix"
                f" {suffixes[-1] if suffixes else '(none)'} says nothing",
                where=name, expected=f"one of {known}, each also with {_GZIP_SUFFIX}",
                remedy="give the channel a ContentType in InputDataConfig",
            )
        return found, None

    def _empty(self, why: str) -> DataError:
        return DataError(
            "CHANNEL_EMPTY", f"channel {self.name!r} has no data: {why}",
            expected="at least one file with a record",
            remedy="look at the channel's S3Uri: it must name an object, or a prefix that objects"
            " begin with",
        )


def open_channels(layout: Layout, config: InputDataConfig) -> dict[str, Channel]:
    """The job's channels by name, in the order of the configuration."""
    return {
        name: Channel(name, channel, layout.channel(name))
        for name, channel in config.channels.items()
    }


def _read(path: Path, name: str) -> bytes:
    data = path.read_bytes()
    if path.suffix.lower() != _GZIP_SUFFIX:
        return data
    try:
        return gzip.decompress(data) if data else data
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            "BODY_MALFORMED", f"it is not a whole gzip file: {error}", where=name,
            expected=f"a file that gzip wrote, as its suffix {_GZIP_SUFFIX} says",
        ) from None


def _concatenate(batches: Sequence[tuple[str, Batch]]) -> Batch:
    import numpy as np

    first_name, first = batches[0]
    if len(batches) == 1:
        return first
    for name, batch in batches[1:]:
        for what, here, there in (
            ("features", _width(batch.features), _width(first.features)),
            ("labels", _width(batch.labels), _width(first.labels)),
        ):
            if here != there:
                raise DataError(
                    "RECORD_WIDTH", f"has {here} {what} a record, {first_name} has {there}",
                    where=name, expected="files of one width in a channel",
                )
    labels = [batch.labels for _, batch in batches if batch.labels is not None]
    return Batch(
        np.concatenate([batch.features for _, batch in batches]),
        np.concatenate(labels) if labels else None,
    )


def _width(array: NDArray[np.float32] | None) -> int:
    if array is None:
        return 0
    return 1 if array.ndim == 1 else int(array.shape[1])
