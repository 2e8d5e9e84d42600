"""RecordIO framing: magic, length with a part flag, payload, padding to 4 bytes (TRAIN-121)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from byoa.container.errors import DataError
from byoa.container.formats.base import byte, place

__all__ = ["HEADER_BYTES", "MAGIC", "frame", "frame_length", "payloads", "whole_frames"]

_MAGIC_NUMBER = 0xCED7230A
MAGIC = struct.pack("<I", _MAGIC_NUMBER)
HEADER_BYTES = 8
_HEADER = struct.Struct("<II")
_LENGTH_BITS = 29
_LENGTH_LIMIT = 1 << _LENGTH_BITS
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)


def frame(payload: bytes) -> bytes:
    """One record as one whole frame, as the SageMaker SDK writes it."""
    if len(payload) >= _LENGTH_LIMIT:
        raise DataError(
            "RECORD_TOO_WIDE", f"a record has {len(payload)} bytes",
            expected=f"fewer than {_LENGTH_LIMIT} bytes, what a RecordIO frame can hold",
        )
    padding = -len(payload) % 4
    return MAGIC + len(payload).to_bytes(4, "little") + payload + bytes(padding)


def frame_length(data: bytes | memoryview) -> int | None:
    """The length in bytes of the first frame if it is whole, padding included, else None."""
    if len(data) < HEADER_BYTES or data[:4] != MAGIC:
        return None
    length = int.from_bytes(data[4:8], "little")
    if length >= _LENGTH_LIMIT:  # a part of a record
        return None
    return HEADER_BYTES + length + -length % 4


def payloads(data: bytes | memoryview, where: str | None = None) -> Iterator[bytes]:
    """Each record's payload; records in parts are joined. Raises DataError BODY_MALFORMED.

    A writer splits a record where the magic occurs in it and leaves that magic out, so it goes
    back in between the parts.
    """
    position, record = 0, 1
    parts: list[bytes] = []
    while position < len(data):
        end_of_header = position + HEADER_BYTES
        if end_of_header > len(data):
            raise _malformed("the frame's header is cut off", position, record, where)
        magic, word = _HEADER.unpack_from(data, position)
        if magic != _MAGIC_NUMBER:
            raise _malformed("no RecordIO frame begins here", position, record, where)
        flag, length = word >> _LENGTH_BITS, word & (_LENGTH_LIMIT - 1)
        end = end_of_header + length
        if end + -length % 4 > len(data):
            raise _malformed(
                f"the frame has {length} bytes of payload and padding to 4, the body ends before",
                position, record, where,
            )
        if flag > _LAST or (flag in (_WHOLE, _FIRST)) == bool(parts):
            raise _malformed("the parts of a record are out of order", position, record, where)
        parts.append(bytes(data[end_of_header:end]))
        if flag in (_WHOLE, _LAST):
            yield MAGIC.join(parts)
            parts = []
            record += 1
        position = end + -length % 4
    if parts:
        raise _malformed("the last part of the record is missing", position, record, where)


def whole_frames(data: bytes | memoryview) -> int:
    """The bytes of the leading records that are whole, all parts of each; 0 where none is.

    Where no frame begins, all bytes count as whole: `payloads` says what is wrong with them.
    """
    end = position = _equal_frames(data)
    while position + HEADER_BYTES <= len(data):
        magic, word = _HEADER.unpack_from(data, position)
        if magic != _MAGIC_NUMBER:
            return len(data)
        flag, length = word >> _LENGTH_BITS, word & (_LENGTH_LIMIT - 1)
        position += HEADER_BYTES + length + -length % 4
        if position > len(data):
            break
        if flag not in (_FIRST, _MIDDLE):
            end = position
    return end


def _equal_frames(data: bytes | memoryview) -> int:
    """The bytes of the leading frames that are as long as the first, what dense records are."""
    length = frame_length(data)
    if length is None or length > len(data):
        return 0
    import numpy as np

    frames = np.frombuffer(data, np.uint8, len(data) // length * length).reshape(-1, length)
    unlike = (frames[:, :HEADER_BYTES] != frames[0, :HEADER_BYTES]).any(axis=1)
    return (int(unlike.argmax()) if unlike.any() else len(frames)) * length


def _malformed(message: str, position: int, record: int, where: str | None) -> DataError:
    return DataError(
        "BODY_MALFORMED", message + byte(where, position),
        where=place(where, record),
        expected="RecordIO frames: bytes 0A 23 D7 CE, length, payload, padding to 4 bytes",
    )
