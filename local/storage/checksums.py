"""The checksums of S3: CRC32, CRC32C, CRC64NVME, SHA1, SHA256, fed piece by piece.

CRC32C and CRC64NVME, which Python lacks, are computed in numpy over many lanes at once.
"""

from __future__ import annotations

import functools
import hashlib
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["ALGORITHMS", "Checksum", "combine", "new"]

ALGORITHMS = ("crc32", "crc32c", "crc64nvme", "sha1", "sha256")

# Reflected polynomials, and width in bits. All start from and end with all ones.
_CRC = {
    "crc32": (0xEDB88320, 32),
    "crc32c": (0x82F63B78, 32),
    "crc64nvme": (0x9A6C9329AC4BC9B5, 64),
}
LANES = 4096
BLOCK_BYTES = 1 << 20  # to one vectorised step; 256 bytes a lane


class Checksum(Protocol):
    """A running checksum."""

    def update(self, data: bytes | memoryview, /) -> object: ...
    def digest(self) -> bytes: ...


def new(name: str) -> Checksum:
    """A running checksum by S3's name in lower case."""
    if name == "crc32":
        return _Crc32()
    if name in _CRC:
        return _LaneCrc(name)
    return hashlib.new(name, usedforsecurity=False)


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes | memoryview, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


class _LaneCrc:
    """A CRC over blocks of 1 MiB cut into 4,096 lanes: each step takes a byte of every lane, and
    the lanes' remainders are joined by halves, as a CRC is linear over GF(2)."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._width = _CRC[name][1]
        self._ones = (1 << self._width) - 1
        self._value = 0
        self._pending = bytearray()

    def update(self, data: bytes | memoryview, /) -> None:
        self._pending += data
        while len(self._pending) >= BLOCK_BYTES:
            block = bytes(memoryview(self._pending)[:BLOCK_BYTES])
            del self._pending[:BLOCK_BYTES]
            self._append(_block_crc(self._name, block), BLOCK_BYTES)

    def _append(self, crc: int, length: int) -> None:
        self._value = _shift(self._name, self._value, length) ^ crc

    def digest(self) -> bytes:
        rest = bytes(self._pending)
        value = _shift(self._name, self._value, len(rest)) ^ _crc(self._name, rest)
        return value.to_bytes(self._width // 8, "big")


def combine(name: str, pieces: Sequence[tuple[bytes, int]]) -> bytes:
    """The CRC of the whole from each piece's CRC (as bytes) and length."""
    value = 0
    for crc, length in pieces:
        value = _shift(name, value, length) ^ int.from_bytes(crc, "big")
    return value.to_bytes(_CRC[name][1] // 8, "big")


@functools.cache
def _table(name: str) -> list[int]:
    polynomial = _CRC[name][0]
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (polynomial if byte & 1 else 0)
        table.append(byte)
    return table


@functools.cache
def _zero_operator(name: str, exponent: int) -> list[int]:
    """What 2**exponent zero bytes do to a remainder: a matrix over GF(2), by columns."""
    width = _CRC[name][1]
    if exponent == 0:
        table = _table(name)
        return [((1 << bit) >> 8) ^ table[(1 << bit) & 0xFF] for bit in range(width)]
    half = _zero_operator(name, exponent - 1)
    return [_times(half, column) for column in half]


def _times(matrix: list[int], vector: int) -> int:
    result = 0
    for column in matrix:
        if vector & 1:
            result ^= column
        vector >>= 1
        if not vector:
            break
    return result


def _shift(name: str, value: int, length: int) -> int:
    """The remainder `value` after `length` zero bytes."""
    exponent = 0
    while length and value:
        if length & 1:
            value = _times(_zero_operator(name, exponent), value)
        length >>= 1
        exponent += 1
    return value


def _crc(name: str, data: bytes) -> int:
    """The CRC of up to one block; short ones byte by byte."""
    whole = len(data) // LANES * LANES
    if whole >= 4 * LANES:
        rest = _crc(name, data[whole:])
        return _shift(name, _block_crc(name, data[:whole]), len(data) - whole) ^ rest
    table, ones = _table(name), (1 << _CRC[name][1]) - 1
    value = ones
    for byte in data:
        value = (value >> 8) ^ table[(value ^ byte) & 0xFF]
    return value ^ ones


@functools.cache
def _numpy_table(name: str) -> npt.NDArray[np.uint64]:
    import numpy

    return numpy.array(_table(name), dtype=numpy.uint64)


def _block_crc(name: str, data: bytes) -> int:
    """The CRC of a multiple of `LANES` bytes."""
    import numpy as np

    ones = (1 << _CRC[name][1]) - 1
    each = len(data) // LANES
    # Column i holds byte i of every lane, side by side in memory.
    columns = np.ascontiguousarray(np.frombuffer(data, dtype=np.uint8).reshape(LANES, each).T)
    table = _numpy_table(name)
    values: Any = np.zeros(LANES, dtype=np.uint64)
    index, found = np.empty_like(values), np.empty_like(values)
    positions = index.view(np.int64)  # what `take` wants, without a copy
    eight, low = np.uint64(8), np.uint64(0xFF)
    for column in columns:
        np.bitwise_xor(values, column, out=index)
        np.bitwise_and(index, low, out=index)
        np.take(table, positions, out=found, mode="wrap")
        np.right_shift(values, eight, out=values)
        np.bitwise_xor(values, found, out=values)
    # Join neighbours: the left one is followed by as many zero bytes as the right one has.
    length = each
    while len(values) > 1:
        values = _shift_lanes(name, values[0::2], length) ^ values[1::2]
        length *= 2
    # Lanes ran from zero; starting from and ending with all ones is added here, by linearity.
    return int(values[0]) ^ _shift(name, ones, len(data)) ^ ones


def _shift_lanes(name: str, values: Any, length: int) -> Any:
    import numpy as np

    columns = _lane_operator(name, length)
    result = np.zeros(len(values), dtype=np.uint64)
    for index, table in enumerate(columns):
        result ^= table[(values >> np.uint64(8 * index)) & np.uint64(0xFF)]
    return result


@functools.lru_cache(maxsize=64)
def _lane_operator(name: str, length: int) -> list[Any]:
    """A table for each byte of a remainder: what `length` zero bytes make of its 256 values."""
    import numpy as np

    return [
        np.array(
            [_shift(name, byte << (8 * index), length) for byte in range(256)], dtype=np.uint64
        )
        for index in range(_CRC[name][1] // 8)
    ]
