"""Objects in a Pipe with RecordWrapperType=RecordIO: each is one record of frames (TRAIN-120)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from byoa.container.errors import DataError
from byoa.container.formats.recordio import HEADER_BYTES, MAGIC

__all__ = ["Readable", "objects"]

_LENGTH_BITS = 29  # the three above are the part's flag (TRAIN-121)
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_SKIPPED_BYTES = 1 << 20


class Readable(Protocol):
    """Something to read bytes from: as many as are asked for, unless it ends before."""

    def read(self, size: int, /) -> bytes: ...


def objects(stream: Readable, where: str) -> Iterator[tuple[str, Readable]]:
    """Each object's name, `train_0 object 3`, and its bytes, to be read before the next one is
    asked for. An attribute of an augmented manifest is an object as well (TRAIN-114).

    Raises DataError BODY_MALFORMED, here and from the reads.
    """
    frames = _Frames(stream, where)
    while frames.advance():
        yield frames.name, frames


class _Frames:
    """The stream at one object. A writer that splits an object leaves a magic out at each seam."""

    def __init__(self, stream: Readable, where: str) -> None:
        self.stream = stream
        self.where = where
        self.number = 0  # of the object
        self.position = 0  # in the stream
        self.left = 0  # bytes of the present part that have not been read
        self.padding = 0  # bytes that follow it
        self.complete = True  # the present part is the object's last

    @property
    def name(self) -> str:
        return f"{self.where} object {self.number}"

    def advance(self) -> bool:
        """Go to the next object; False at the stream's end."""
        while self.read(_SKIPPED_BYTES):
            pass
        self._take(self.padding)
        self.padding = 0
        self.number += 1
        return self._open((_WHOLE, _FIRST))

    def read(self, size: int, /) -> bytes:
        parts: list[bytes] = []
        while size > 0:
            if self.left:
                part = self._take(min(size, self.left))
                self.left -= len(part)
            elif self.complete:
                break
            else:
                self._take(self.padding)
                if not self._open((_MIDDLE, _LAST)):
                    raise self._malformed("the last part of the object is missing")
                part = MAGIC
            parts.append(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _open(self, flags: tuple[int, int]) -> bool:
        """Read the header of the next part, which must have one of `flags`; False at the end."""
        head = self.stream.read(HEADER_BYTES)
        if not head:
            return False
        if not head.startswith(MAGIC[:len(head)]):
            raise self._malformed("no RecordIO frame begins here")
        if len(head) < HEADER_BYTES:
            raise self._malformed("the frame's header is cut off")
        word = int.from_bytes(head[4:], "little")
        flag = word >> _LENGTH_BITS
        if flag not in flags:
            raise self._malformed("the parts of an object are out of order")
        self.position += HEADER_BYTES
        self.left = word & ((1 << _LENGTH_BITS) - 1)
        self.padding = -self.left % 4
        self.complete = flag in (_WHOLE, _LAST)
        return True

    def _take(self, size: int) -> bytes:
        data = self.stream.read(size) if size else b""
        if len(data) < size:
            raise self._malformed("the stream ends within a frame", len(data))
        self.position += size
        return data

    def _malformed(self, message: str, further: int = 0) -> DataError:
        return DataError(
            "BODY_MALFORMED",
            f"{message} (byte {self.position + further}, counted from 0)", where=self.name,
            expected="the objects of a channel whose RecordWrapperType is RecordIO, each as one"
            " record: bytes 0A 23 D7 CE, length, payload, padding to 4 bytes",
        )
