"""Records: the bytes of files, objects or a FIFO, decoded piece by piece into runs of one width.

Memory holds a piece at a time, whatever the size of the whole. A piece is decoded as a part of its
file, so that errors count records and bytes over the file. A file whose format cannot be cut (a
JSON document) is one piece.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from byoa.container.batching import rows
from byoa.container.cutter import Cutter, everything, marked
from byoa.container.errors import DataError
from byoa.container.formats.base import Batch, Format, Part, columns
from byoa.container.media_types import MediaType
from byoa.container.objects import Readable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Records", "Share", "Source", "without"]

PIECE_BYTES = 1 << 20  # what the text formats decode at once
_DEALT_BYTES = 1 << 15  # a part of a piece that is worth a decode of its own


@dataclass(frozen=True)
class Source:
    """A file, an object or a FIFO: a name for errors, the bytes, and what they mean."""

    name: str
    stream: Readable
    format: Format
    media: MediaType | None


@dataclass(frozen=True)
class Share:
    """The records for one of several processes that all read the same data.

    Every record goes to exactly one. Of small pieces (a small file is one, and so is the end of a
    large one) the i-th record goes to rank i modulo ranks. Of a large piece each rank decodes one
    part only, of about as many bytes as the others', and the ranks take turns from piece to piece:
    shares differ by a few records.
    """

    rank: int = 0
    ranks: int = 1

    @property
    def piece_bytes(self) -> int:
        return max(PIECE_BYTES, 2 * _DEALT_BYTES * self.ranks)

    @property
    def dealt_bytes(self) -> int:
        """From here on a piece is a large one."""
        return _DEALT_BYTES * self.ranks


class Records:
    """One pass over a channel's sources."""

    def __init__(self, label_size: int | None, columns: int | None, share: Share) -> None:
        self.seen = False  # a record, of this share or of another
        self._label_size = label_size
        self._columns = columns
        self._share = share
        self._like: tuple[str, tuple[int, int]] | None = None  # the widths that all are to have
        self._dealt = 0  # large pieces
        self._picked = 0  # records of small pieces

    def of(self, source: Source) -> Iterator[Batch]:
        """The share's records of a source in runs, none of them empty. Raises DataError."""
        full = media = source.media
        if self._label_size is not None:
            full = media = without("label_size", full)
        if source.format.boundary(b"", full) is None:
            media = without("header", full)  # with the header taken off, it may be lines
        if source.format.boundary(b"", media) is None:
            if len(data := everything(source.stream)):
                yield from self._picks(self._decode(source, full, data, Part(source.name)))
            return

        def boundary(data: bytes) -> int:
            return source.format.boundary(data, media) or 0

        cutter = Cutter(source.stream, boundary, self._share.piece_bytes, source.name)
        head = b"" if media is full else cutter.head()
        begun = yield from self._pieces(source, media, cutter)
        if head and not begun:
            self._decode(source, full, head, Part(source.name))  # which says what is missing

    def _pieces(
        self, source: Source, media: MediaType | None, cutter: Cutter
    ) -> Generator[Batch, None, bool]:
        """Whether there is a piece at all."""
        records: int | None = 0  # in the pieces before, where others have not decoded them
        begun = False
        for offset, piece in cutter.pieces():
            part = self._part(cutter, piece)
            first = cutter.first() if begun or part else b""
            if part is None:
                where = Part(source.name, records, offset) if records is not None else Part(
                    f"{source.name} after byte {offset}", 0, offset
                )
            else:
                start, end = part
                where = Part(f"{source.name} after byte {offset + start}", 0, offset + start)
                records = None
                if first and not begun:  # all ranks find the same fault
                    self._decode(source, media, first, Part(source.name))
                piece = piece[start:end]
            try:
                batch = self._decode(source, media, piece, where, first) if piece else None
            except DataError as error:
                if begun and error.code == "BODY_EMPTY" and piece.isspace():
                    break  # blank lines at the file's end
                raise
            begun = self.seen = True
            if batch is None:
                continue
            if records is not None:
                records += len(batch.features)
            if part is None:
                yield from self._picks(batch)
            else:
                yield batch
        return begun

    def _part(self, cutter: Cutter, piece: bytes) -> tuple[int, int] | None:
        """From where to where this rank decodes a large piece; None for a small one."""
        ranks = self._share.ranks
        if ranks == 1 or len(piece) < self._share.dealt_bytes:
            return None
        turn = (self._share.rank + self._dealt) % ranks
        self._dealt += 1
        start = cutter.end(piece, turn * len(piece) // ranks)
        if turn + 1 == ranks:
            return start, len(piece)
        return start, cutter.end(piece, (turn + 1) * len(piece) // ranks)

    def _picks(self, batch: Batch) -> Iterator[Batch]:
        """This rank's records of a batch that all ranks decode."""
        import numpy as np

        self.seen = True
        rank, ranks = self._share.rank, self._share.ranks
        if ranks == 1:
            yield batch
            return
        start = (rank - self._picked) % ranks
        self._picked += len(batch.features)
        if start < len(batch.features):
            mine = rows(batch, slice(start, None, ranks))
            labels = None if mine.labels is None else np.ascontiguousarray(mine.labels)
            yield Batch(np.ascontiguousarray(mine.features), labels)

    def _decode(
        self, source: Source, media: MediaType | None, data: bytes | memoryview, where: Part,
        first: bytes = b"",
    ) -> Batch:
        """A piece, which must be like the `first` record of its file and like the channel's."""
        if first and marked(data):
            self._compare(source, media, data, where, first)
        try:
            batch = self._decoded(source, media, data, where)
        except DataError:
            if first:
                self._compare(source, media, data, where, first)
            raise
        if self._like is None:
            self._like = source.name, _widths(batch)
            self._check_columns(source.name, batch)
        elif _widths(batch) != self._like[1]:
            if first:
                self._compare(source, media, data, where, first)
            raise _unlike(source.name, batch, *self._like)
        return batch

    def _decoded(
        self, source: Source, media: MediaType | None, data: bytes | memoryview, where: Part
    ) -> Batch:
        label_size = 1 if self._label_size is None else self._label_size
        return source.format.decode(data, media, label_size=label_size, where=where)

    def _compare(
        self, source: Source, media: MediaType | None, data: bytes | memoryview, where: Part,
        first: bytes,
    ) -> None:
        """Decode a faulty piece behind the first record of its file, as the file has it: a piece
        alone would blame its other records where its own first one is not like the file's."""
        before = len(self._decoded(source, media, first, Part(source.name)).features)
        behind = Part(where, where.records - before, where.bytes - len(first))
        try:
            self._decoded(source, media, first + bytes(data), behind)
        except DataError as error:
            raise error from None

    def _check_columns(self, name: str, batch: Batch) -> None:
        if self._columns is not None and _widths(batch)[0] != self._columns:
            raise DataError(
                "RECORD_WIDTH", f"has {columns(_widths(batch)[0])} of features", where=name,
                expected=f"{columns(self._columns)}, as the algorithm asks for",
            )


def _unlike(name: str, batch: Batch, first_name: str, first: tuple[int, int]) -> DataError:
    pairs = zip(("features", "labels"), _widths(batch), first, strict=True)
    what, here, there = next(each for each in pairs if each[1] != each[2])
    return DataError(
        "RECORD_WIDTH", f"has {here} {what} a record, {first_name} has {there}", where=name,
        expected="files of one width in a channel",
    )


def _widths(batch: Batch) -> tuple[int, int]:
    """Features and labels of a record."""
    return _width(batch.features), _width(batch.labels)


def _width(array: NDArray[np.float32] | None) -> int:
    return 0 if array is None else math.prod(array.shape[1:])


def without(parameter: str, media: MediaType | None) -> MediaType | None:
    """The media type without that parameter; itself where it has none."""
    if media is None or parameter not in media.parameters:
        return media
    kept = {name: value for name, value in media.parameters.items() if name != parameter}
    return MediaType(media.type, media.subtype, kept)
