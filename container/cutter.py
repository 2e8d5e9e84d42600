"""A cutter: a stream of bytes in pieces that end where records end, of a size that it is given."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator

from byoa.container.errors import DataError
from byoa.container.formats.base import byte
from byoa.container.objects import Readable

__all__ = ["Boundary", "Cutter", "everything"]

RECORD_LIMIT_BYTES = 1 << 29  # as much as a RecordIO frame can hold
_LEAST_BYTES = 64
_CHUNK_BYTES = 1 << 24
_BLANK = b" \t\r\n\f\v"

Boundary = Callable[[bytes], int]
"""How many leading bytes are whole records, as Format.boundary for a format that can tell."""


class Cutter:
    """Where it cuts depends on the bytes and the size alone, not on how the bytes came."""

    def __init__(self, stream: Readable, boundary: Boundary, size: int, name: str) -> None:
        self._stream = stream
        self._boundary = boundary
        self._size = size
        self._name = name
        self._rest = b""
        self._offset = 0  # of `_rest` in the stream
        self._opening = b""  # the first piece, then its first record

    def head(self) -> bytes:
        """The first record, taken off; all there is where none ends. Before `pieces`."""
        while self._more():
            if end := self._one(self._rest):
                return self._taken(end)
        return self._taken(len(self._rest))

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """Each piece and its offset. The last may be no whole record; `decode` names that."""
        while self._more():
            if end := self.end(self._rest, len(self._rest)):
                yield self._piece(end)
        if self._rest:
            yield self._piece(len(self._rest))

    def end(self, piece: bytes, limit: int) -> int:
        """How many of the first `limit` bytes are whole records, without blank lines behind them.

        A blank line between records is a fault, which is only seen with a record behind it.
        """
        end = self._boundary(piece if limit == len(piece) else piece[:limit])
        if end < 2 or piece[end - 1] not in _BLANK or piece[end - 2] not in _BLANK:
            return end
        text = len(piece[:end].rstrip(_BLANK))
        if text == 0:
            return 0
        ends = [place for place in (piece.find(b"\n", text, end), piece.find(b"\r", text, end))
                if place >= 0]
        shorter = min(ends, default=end) + 1
        if piece[shorter - 1:shorter + 1] == b"\r\n":
            shorter += 1
        # Records that are not lines do not end there.
        return shorter if self._boundary(piece[:shorter + 1]) == shorter else end

    def first(self) -> bytes:
        """The first record of the pieces: what the others are to be like."""
        if len(self._opening) > _LEAST_BYTES:
            self._opening = self._opening[:self._one(self._opening)]
        return self._opening

    def _more(self) -> bool:
        """Read on; a record that is longer than the size in ever larger steps."""
        held = len(self._rest)
        if held > RECORD_LIMIT_BYTES:
            raise DataError(
                "RECORD_TOO_WIDE",
                f"no record ends within {held} bytes{byte(None, self._offset)}", where=self._name,
                expected=f"records of at most {RECORD_LIMIT_BYTES} bytes, in the format that the"
                " channel's ContentType, or the file's suffix, says",
            )
        block = self._stream.read(self._size - held if 2 * held <= self._size else held)
        self._rest += block
        return bool(block)

    def _piece(self, end: int) -> tuple[int, bytes]:
        offset, piece = self._offset, self._taken(end)
        if not self._opening:
            self._opening = piece
        return offset, piece

    def _taken(self, end: int) -> bytes:
        piece, self._rest = self._rest[:end], self._rest[end:]
        self._offset += end
        return piece

    def _one(self, data: bytes) -> int:
        """Where the first record ends; 0 where none is whole."""
        few, many = 0, _LEAST_BYTES
        while not (end := self._boundary(data[:many])):
            if many >= len(data):
                return 0
            few, many = many, 2 * many
        while few + 1 < many:
            middle = (few + many) // 2
            if found := self._boundary(data[:middle]):
                many, end = middle, found
            else:
                few = middle
        return end


def marked(piece: bytes) -> bool:
    """Whether it begins with a byte order mark, which only a file's beginning may."""
    return piece.startswith(codecs.BOM_UTF8)


def everything(stream: Readable) -> bytes | memoryview:
    """All that is left of the stream."""
    first = stream.read(_CHUNK_BYTES)
    if len(first) < _CHUNK_BYTES:
        return first
    data = bytearray(first)
    while block := stream.read(_CHUNK_BYTES):
        data += block
    return memoryview(data).toreadonly()
