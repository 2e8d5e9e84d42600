"""What a Pipe channel does to an object on its way: gunzip it, wrap it as a record (TRAIN-102,
TRAIN-120). Both in blocks, whatever the object's size.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator

MAGIC = 0xCED7230A
RECORD_LIMIT_BYTES = 1 << 29  # the length is 29 bits of a frame's header (TRAIN-121)
BLOCK_BYTES = 1 << 18

_GZIP = 16 + zlib.MAX_WBITS  # zlib is to expect gzip's header and checksum
_HEADER = struct.Struct("<II")


class NotGzip(Exception):
    """The bytes are no whole gzip file; the text says why."""


def header(length: int) -> bytes:
    """What precedes a record of so many bytes, fewer than RECORD_LIMIT_BYTES."""
    return _HEADER.pack(MAGIC, length)


def padding(length: int) -> bytes:
    """What follows it, for the next frame to begin at a multiple of 4."""
    return bytes(-length % 4)


def gunzip(file: int) -> Iterator[bytes]:
    """The decompressed bytes of an open file in blocks; of one that is several gzip files in a row,
    those of all. Raises NotGzip."""
    stream, pending, offset = zlib.decompressobj(_GZIP), b"", 0
    begun = False  # a member has; empty files and zeros after the last member are none
    while True:
        if not pending:
            pending = os.pread(file, BLOCK_BYTES, offset)
            offset += len(pending)
            if not pending:
                break
        if not begun and offset > len(pending):
            pending = pending.lstrip(b"\0")  # as gzip itself allows between and after members
            if not pending:
                continue
        begun = True
        try:
            data = stream.decompress(pending, BLOCK_BYTES)
        except zlib.error as error:
            raise NotGzip(str(error)) from None
        if data:
            yield data
        pending = stream.unconsumed_tail
        if stream.eof:
            pending, begun = stream.unused_data, False
            stream = zlib.decompressobj(_GZIP)
    if begun:
        raise NotGzip("it ends before its end-of-stream marker")
