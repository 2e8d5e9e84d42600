"""A plain gzip file, written by all CPUs: blocks are deflated in threads, and are one member.

Each block is compressed as it deserves: matching for text, Huffman's code alone for what repeats
nothing (weights of 16 bits), and stored where compressing saves next to nothing (weights of 32
bits: a twentieth of the size for thirty times the time). Any gunzip reads the result.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import BinaryIO

BLOCK_BYTES = 1 << 20
SAMPLE_BYTES = 16 << 10  # of a block's start, middle and end
STORED_ABOVE = 0.9  # of its size, that compressing would leave of a block
MATCHING_GAIN = 0.95  # of what Huffman's code leaves; less, and looking for matches is worth it
LEVEL = 1  # a third of the time of level 6, for about the same size

_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"  # no name and no time: the same each time
_END = b"\x03\x00"  # an empty last block


class GzipWriter:
    """A file to write to, as tarfile wants one. What is in memory is a few blocks a CPU."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (
            os.cpu_count() or 1
        )
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="gzip")
        self._limit = 2 * workers
        self._pending: deque[Future[bytes]] = deque()
        self._block = bytearray()
        self._checksum, self._size = 0, 0
        target.write(_HEADER)

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            room = BLOCK_BYTES - len(self._block)
            self._block += view[:room]
            view = view[room:]
            if len(self._block) == BLOCK_BYTES:
                self._submit()
        return len(data)

    def tell(self) -> int:
        """How much has been written to it, uncompressed."""
        return self._size + len(self._block)

    def __enter__(self) -> GzipWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._submit()
                self._drain(0)
                size = self._size & 0xFFFFFFFF
                self._target.write(_END + struct.pack("<II", self._checksum, size))
        finally:
            self._pool.shutdown(cancel_futures=True)

    def _submit(self) -> None:
        block, self._block = bytes(self._block), bytearray()
        self._checksum = zlib.crc32(block, self._checksum)
        self._size += len(block)
        self._pending.append(self._pool.submit(_deflate, block))
        self._drain(self._limit)

    def _drain(self, leave: int) -> None:
        while len(self._pending) > leave:
            self._target.write(self._pending.popleft().result())


def _deflate(block: bytes) -> bytes:
    level, strategy = _choose(block)
    # An end at a byte's border (Z_SYNC_FLUSH) is what the next block can follow.
    deflater = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, strategy)
    return deflater.compress(block) + deflater.flush(zlib.Z_SYNC_FLUSH)


def _choose(block: bytes) -> tuple[int, int]:
    """Level and strategy for a block, by samples of it."""
    middle = (len(block) - SAMPLE_BYTES) // 2
    sample = block if middle <= SAMPLE_BYTES else (
        block[:SAMPLE_BYTES] + block[middle : middle + SAMPLE_BYTES] + block[-SAMPLE_BYTES:]
    )
    matched = _size(sample, zlib.Z_DEFAULT_STRATEGY)
    coded = _size(sample, zlib.Z_HUFFMAN_ONLY)
    if min(matched, coded) > STORED_ABOVE * len(sample):
        return 0, zlib.Z_DEFAULT_STRATEGY
    worth = matched < MATCHING_GAIN * coded
    return LEVEL, zlib.Z_DEFAULT_STRATEGY if worth else zlib.Z_HUFFMAN_ONLY


def _size(sample: bytes, strategy: int) -> int:
    deflater = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, strategy)
    return len(deflater.compress(sample)) + len(deflater.flush())
