"""Training channels: a channel's records, whole or in batches, and its files.

Channels come from inputdataconfig.json, never from listing the data directory (TRAIN-31). What an
algorithm sees does not depend on the input mode, but for the file names that a Pipe has not.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from byoa.container.batching import concatenate, in_batches, shuffled, weight
from byoa.container.contract import ChannelConfig, InputDataConfig, Layout
from byoa.container.errors import DataError, UnsupportedError
from byoa.container.files import GZIP_SUFFIX, data_files, opened
from byoa.container.formats import registry
from byoa.container.formats.base import Batch, Format
from byoa.container.formats.image import FORMAT as IMAGE
from byoa.container.labelled_images import FORMATS as IMAGE_FORMATS
from byoa.container.labelled_images import image_sources
from byoa.container.labels import LIST_SUFFIX, folder_labels, labels_width, listed_labels
from byoa.container.media_types import MediaType, parse_media_type
from byoa.container.objects import objects
from byoa.container.pipe import Pipe
from byoa.container.prefetch import Stopped, prefetch
from byoa.container.records import Records, Share, Source, without

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Channel", "open_channels"]

PREFETCH_BYTES = 64 << 20  # of decoded records that wait for the algorithm
_FIFO_BUFFER_BYTES = 1 << 16


def _never() -> bool:
    return False


def _nothing(batch: Batch) -> None:
    return None


class _File(NamedTuple):
    """A data file, its name in errors, and what its bytes mean."""

    path: Path
    name: str
    format: Format
    media: MediaType | None
    labels: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Channel:
    """One channel of a training job. File and FastFile channels are both directories; a Pipe
    channel has a FIFO for each pass. An image is a record, and its label is in a `.lst` file or is
    the place of its folder among the sorted folders (container.labels); in Pipe mode it is in the
    record behind the image's, or nowhere (container.labelled_images).

    `list_channel` is the directory of channel `<name>_lst`, and `alike` are the channels, names and
    directories, whose folders are the same classes as this one's.
    `pipe` is there in Pipe mode alone. `hosts` is how many the job has, `stopping` whether it is to
    end, and `observe` is shown the first batch of each pass.
    """

    name: str
    config: ChannelConfig
    directory: Path
    pipe: Pipe | None = field(default=None, compare=False, repr=False)
    hosts: int = field(default=1, compare=False, repr=False)
    stopping: Callable[[], bool] = field(default=_never, compare=False, repr=False)
    observe: Callable[[Batch], None] = field(default=_nothing, compare=False, repr=False)
    list_channel: Path | None = field(default=None, compare=False, repr=False)
    alike: tuple[tuple[str, Path], ...] = field(default=(), compare=False, repr=False)

    def files(self) -> list[Path]:
        """The data files below the directory, sorted by path; not the platform's own files.

        Raises UnsupportedError PIPE_HAS_NO_FILES for a Pipe channel, DataError CHANNEL_EMPTY where
        there is no file.
        """
        if self.pipe is not None:
            raise UnsupportedError(
                "PIPE_HAS_NO_FILES", f"channel {self.name!r} is in Pipe mode, a stream of bytes",
                expected="TrainingInputMode File or FastFile",
                remedy="read its records with load() or batches(), which work in every mode, or use"
                " FastFile, which streams from S3 as well",
            )
        found = data_files(self.directory, self.name)
        if not found:
            why = "holds no data file" if self.directory.is_dir() else "does not exist"
            raise self._empty(f"its directory {self.directory} {why}")
        return found

    def load(self, *, label_size: int | None = None, columns: int | None = None) -> Batch:
        """The whole channel as float32 features (records, columns) and labels, files in order.

        The format is the channel's ContentType, else each file's suffix; `.gz` is decompressed.
        The leading column of CSV, npy and bare JSON arrays is the label (TRAIN-125) unless
        ContentType says otherwise, as `text/csv;label_size=0`, or `label_size` is given; formats
        that name their labels need neither; images have what `container.labels` finds.
        `columns` is how many features a record has to have; libsvm without one, and without
        `features` in its media type, becomes as wide as the widest record. In Pipe mode it is the
        next pass. Raises DataError, naming file and record; UnsupportedError.
        """
        records = Records(label_size, columns, Share(), level=True)
        if self.pipe is not None:
            self._check_pipe()
            try:
                runs = list(self._ahead(partial(self._runs, records)))
            except Stopped:
                raise DataError(
                    "CHANNEL_STOPPED",
                    f"the job was stopped while channel {self.name!r} was being loaded",
                    expected="the whole channel before the stop",
                ) from None
        else:
            runs = list(self._runs(records, _never))
        if not runs:
            raise self._empty("it has no record")
        batch = concatenate(records.levelled(runs))
        self.observe(batch)
        return batch

    def batches(
        self,
        size: int,
        *,
        epoch: int = 0,
        label_size: int | None = None,
        shuffle: int = 0,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
        columns: int | None = None,
    ) -> Iterator[Batch]:
        """The channel's records once, in batches of `size` (the last may be smaller, none is
        empty), read and decoded on a thread that runs ahead, in memory that the channel's size
        does not change.

        `label_size` and `columns` are as in `load`, but that libsvm needs its width declared: the
        widest record is known only at the end. `shuffle` is how many records a buffer holds
        that they leave in an order drawn from `seed` and `epoch`; with 0 it is the stored one. In
        Pipe mode each call reads the next FIFO, whatever `epoch` is.

        Each record goes to one of `ranks` processes: the i-th of a small file to rank i modulo
        ranks, of a large one about as many to each (`records.Share`). A ShardedByS3Key channel has
        been divided by the platform already and is shared by the ranks of a host alone. A host or
        rank for which there is none gets no batch.

        Closing the iterator, or dropping it, ends the thread and closes what it reads. After a
        stop (`run.stopping`) the iterator ends where it would have to wait for the platform: then
        not all records have come. Raises DataError as `load`; UnsupportedError.
        """
        for name, value, least in (
            ("size", size, 1), ("epoch", epoch, 0), ("shuffle", shuffle, 0), ("seed", seed, 0),
            ("ranks", ranks, 1), ("rank", rank, 0),
        ):
            if value < least:
                raise ValueError(f"{name} is {value}, at least {least} is needed")
        if rank >= ranks:
            raise ValueError(f"rank is {rank} of {ranks}; ranks are counted from 0")
        share = self._share(rank, ranks)
        if self.pipe is not None:
            self._check_pipe()
        records = Records(label_size, columns, share)

        def produce(abandoned: Callable[[], bool]) -> Iterator[Batch]:
            runs = self._runs(records, abandoned)
            return shuffled(runs, shuffle, [seed, epoch]) if shuffle else runs

        return self._iterate(produce, size, records)

    def _iterate(
        self, produce: Callable[[Callable[[], bool]], Iterator[Batch]], size: int, records: Records
    ) -> Iterator[Batch]:
        ahead = self._ahead(produce)
        first = True
        try:
            for batch in in_batches(ahead, size):
                if first:
                    first = False
                    self.observe(batch)
                yield batch
        except Stopped:
            return
        finally:
            ahead.close()
        # Of few objects a host may get none (TRAIN-100).
        if not records.seen and not (self._sharded and self.hosts > 1):
            raise self._empty("it has no record")

    def _ahead(
        self, produce: Callable[[Callable[[], bool]], Iterator[Batch]]
    ) -> Generator[Batch, None, None]:
        return prefetch(
            produce, weigh=weight, limit=PREFETCH_BYTES, stopping=self.stopping,
            name=f"channel {self.name}",
        )

    def _runs(self, records: Records, abandoned: Callable[[], bool]) -> Iterator[Batch]:
        for source in self._sources(records, abandoned):
            yield from records.of(source)

    def _sources(self, records: Records, abandoned: Callable[[], bool]) -> Iterator[Source]:
        """The channel's sources, each open while it is the present one."""
        if self.pipe is None:
            for path, name, format_, media, labels in self._data(records.label_size):
                with opened(path, name) as stream:
                    yield Source(name, stream, format_, media, labels)
            return
        format_, media = self._format(None, self.name)
        with self.pipe.open(abandoned) as fifo:
            buffered = io.BufferedReader(fifo, _FIFO_BUFFER_BYTES)
            if self.config.record_wrapper == "RecordIO":
                found = objects(buffered, fifo.name)
                if format_ in IMAGE_FORMATS:
                    yield from image_sources(found, format_, media, records.label_size)
                else:
                    for name, stream in found:
                        yield Source(name, stream, format_, media)
            else:
                yield Source(fifo.name, buffered, format_, media)

    def _data(self, label_size: int | None) -> list[_File]:
        """What each file is, and its label where it is an image."""
        files, lists = [], []
        for path in self.files():
            name = f"{self.name}/{path.relative_to(self.directory).as_posix()}"
            if path.suffix.lower() == LIST_SUFFIX:
                lists.append((name, path))
            else:
                files.append(_File(path, name, *self._format(path, name)))
        images = [file for file in files if file.format is IMAGE]
        if not images:  # then a list is data, too
            files += [_File(path, name, *self._format(path, name)) for name, path in lists]
            return sorted(files, key=lambda file: file.path)
        if label_size == 0 or (labels := self._image_labels(images, lists, label_size)) is None:
            return files
        rows = {file.path: labels[row:row + 1] for row, file in enumerate(images)}
        return [file._replace(labels=rows.get(file.path)) for file in files]

    def _image_labels(
        self, images: list[_File], lists: list[tuple[str, Path]], label_size: int | None
    ) -> NDArray[np.float32] | None:
        paths = [file.path.relative_to(self.directory).as_posix() for file in images]
        if self.list_channel is not None:
            name = self.list_channel.name
            lists = lists + [
                (f"{name}/{path.relative_to(self.list_channel).as_posix()}", path)
                for path in data_files(self.list_channel, name)
            ]
        if lists:
            labels: NDArray[np.float32] | None = listed_labels(lists, paths, self.name)
        elif self._sharded and self.hosts > 1 and any("/" in path for path in paths):
            raise UnsupportedError(
                "LABELS_SHARDED", f"channel {self.name!r} is divided over {self.hosts} hosts, and"
                " no host sees all folders, which would be the classes",
                expected=f"labels in a {LIST_SUFFIX} file",
                remedy=f"give the labels in a channel {self.name}_lst, use FullyReplicated, or"
                " read the images without labels, with label_size=0",
            )
        else:
            labels = folder_labels(paths, self.alike)
        if label_size is not None and (found := labels_width(labels)) != label_size:
            raise DataError(
                "LABEL_MISSING", f"its images have {found} labels each, not {label_size}",
                where=self.name,
                expected=f"a {LIST_SUFFIX} file with {label_size} labels a line"
                + ", or a folder for each class" * (label_size == 1),
            )
        return labels

    def _format(self, path: Path | None, name: str) -> tuple[Format, MediaType | None]:
        """By the ContentType, else by the file's suffix."""
        if self.config.content_type:
            media = parse_media_type(self.config.content_type)
            return registry.find(media), media
        suffixes = [] if path is None else [suffix.lower() for suffix in path.suffixes]
        if suffixes[-1:] == [GZIP_SUFFIX]:
            suffixes.pop()
        found = registry.by_suffix(suffixes[-1]) if suffixes else None
        if found is not None:
            return found, None
        if path is None:
            what = "a Pipe has no file names"
            known = ", ".join(each.media_types[0] for each in registry.all())
        else:
            what = f"the file's suffix {suffixes[-1] if suffixes else '(none)'} says nothing"
            known = "; ".join(
                f"{', '.join(each.suffixes)} ({each.media_types[0]})" for each in registry.all()
            ) + f", each also with {GZIP_SUFFIX}"
        raise DataError(
            "FORMAT_UNKNOWN", f"the channel has no ContentType and {what}", where=name,
            expected=f"one of {known}",
            remedy="give the channel a ContentType in InputDataConfig",
        )

    def _check_pipe(self) -> None:
        """Refuse what cannot be read from a stream. Raises UnsupportedError, DataError."""
        format_, media = self._format(None, self.name)
        plain = None if media is None else without("header", media)
        if self.config.record_wrapper == "RecordIO" or format_.boundary(b"", media) is not None:
            return
        why = (
            f"records of {media} cannot be told apart in a stream"
            if format_.boundary(b"", plain) is None
            else "the header lines of files that follow one another in a stream look like records"
        )
        raise UnsupportedError(
            "PIPE_NEEDS_RECORDIO", f"channel {self.name!r} is in Pipe mode: {why}",
            expected="RecordWrapperType RecordIO, with which each object comes as one record"
            " (TRAIN-120), or TrainingInputMode FastFile or File",
            remedy="set InputMode FastFile, which streams from S3 as well, or RecordWrapperType"
            " RecordIO, for the channel in InputDataConfig",
        )

    def _share(self, rank: int, ranks: int) -> Share:
        """What of this host's data is for a rank of all hosts' ranks."""
        if self.pipe is not None and ranks > self.hosts:
            raise UnsupportedError(
                "PIPE_RANKS", f"channel {self.name!r} is in Pipe mode, and {ranks} ranks on"
                f" {self.hosts} host{'s' * (self.hosts > 1)} are to read it",
                expected="one process a host: a FIFO has one reader (TRAIN-95)",
                remedy="use FastFile, which streams from S3 as well and has many readers",
            )
        if not self._sharded or ranks == 1 or self.hosts == 1:
            return Share(rank, ranks)
        if ranks % self.hosts:
            raise UnsupportedError(
                "RANKS_UNEVEN", f"{ranks} ranks share channel {self.name!r}, which is divided over"
                f" {self.hosts} hosts by S3DataDistributionType ShardedByS3Key",
                expected="as many ranks on each host",
                remedy="use FullyReplicated, which any number of ranks can share",
            )
        local = ranks // self.hosts
        return Share(rank % local, local)

    @property
    def _sharded(self) -> bool:
        return self.config.distribution == "ShardedByS3Key"

    def _empty(self, why: str) -> DataError:
        return DataError(
            "CHANNEL_EMPTY", f"channel {self.name!r} has no data: {why}",
            expected="at least one file with a record",
            remedy="look at the channel's S3Uri: it must name an object, or a prefix that objects"
            " begin with",
        )


def open_channels(
    layout: Layout,
    config: InputDataConfig,
    *,
    hosts: int = 1,
    stopping: Callable[[], bool] = _never,
    observe: Callable[[Batch], None] = _nothing,
) -> dict[str, Channel]:
    """The job's channels by name, in the order of the configuration."""

    def pipe(name: str, channel: ChannelConfig) -> Pipe | None:
        return Pipe(name, partial(layout.fifo, name)) if channel.input_mode == "Pipe" else None

    directories = {
        name: layout.channel(name)
        for name, channel in config.channels.items() if channel.input_mode != "Pipe"
    }

    def alike(channel: ChannelConfig) -> tuple[tuple[str, Path], ...]:
        return tuple(
            (name, directory) for name, directory in directories.items()
            if config.channels[name].content_type == channel.content_type
        )

    return {
        name: Channel(
            name, channel, layout.channel(name), pipe(name, channel), hosts, stopping, observe,
            directories.get(f"{name}_lst"), alike(channel),
        )
        for name, channel in config.channels.items()
    }
