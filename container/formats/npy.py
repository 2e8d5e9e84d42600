"""application/x-npy: one NumPy array, float32 (records, columns) at its best.

The header is read here, not by numpy: object arrays are pickles, which run code, and are never
loaded; a shape is believed only when exactly that many bytes follow.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from byoa.container.errors import DataError
from byoa.container.formats import predictions as shapes
from byoa.container.formats.base import (
    Batch,
    Format,
    Part,
    body_empty,
    byte,
    columns,
    label_size_of,
    place,
    split_labels,
    to_float32,
)
from byoa.container.formats.limits import LIMITS, Limits
from byoa.container.media_types import MediaType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FORMAT"]

_MAGIC = b"\x93NUMPY"
_ALIGNMENT = 64  # of the data, so that it can be mapped
_HEADER_LIMIT = 10_000
_HEAD_BYTES = 12  # what says how long the header is, or more
_CHUNK_BYTES = 1 << 24
_NUMERIC = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f[248])")
_EXPECTED = "the bytes that numpy.save writes for a numeric array (records, columns)"


class _Npy(Format):
    name = "npy"
    media_types = ("application/x-npy",)
    suffixes = (".npy",)
    sample = "the bytes of numpy.save for an array (records, columns)"

    def decode(
        self,
        data: bytes | memoryview,
        media: MediaType | None = None,
        *,
        label_size: int = 0,
        where: str | None = None,
        limits: Limits = LIMITS,
    ) -> Batch:
        """An array (records, columns), or several of one width one after the other, as
        concatenated files are; an array of one dimension is one record, one of more than two has a
        record in each of its first, flattened."""
        if not len(data):
            raise body_empty(where, self.sample)
        labels = label_size_of(media, label_size)
        matrix, end = _matrix(data, 0, where, labels, limits)
        if end < len(data):
            matrix = _with_others(matrix, data, end, where, labels, limits)
        return split_labels(matrix, labels, where, limits)

    def streamed(
        self,
        read: Callable[[int], bytes],
        media: MediaType | None = None,
        *,
        label_size: int = 0,
        where: str,
        size: int,
    ) -> Iterator[Batch]:
        """The rows of each array, a block at a time; an array in Fortran's order comes whole."""
        labels = label_size_of(media, label_size)
        records = 0
        for matrix in _blocks(read, where, size):
            yield split_labels(matrix, labels, Part(where, records))
            records += len(matrix)

    def boundary(self, data: bytes | memoryview, media: MediaType | None = None) -> int | None:
        """Behind the last whole array."""
        end = 0
        try:
            while end < len(data):
                if _header_end(data, end, None) is None:
                    break
                array = _header(data, end, None)
                if array.end > len(data):
                    break
                end = array.end
        except DataError:
            return len(data)
        return end

    def encode(self, predictions: Any, media: MediaType | None = None) -> bytes:
        """The array as it is; several columns are flattened side by side into one (n, k)."""
        array = _joined(predictions)
        descr, shape = array.dtype.str, array.shape
        header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}"
        fill = -(len(_MAGIC) + 4 + len(header) + 1) % _ALIGNMENT
        text = f"{header}{' ' * fill}\n".encode("latin-1")
        return _MAGIC + b"\x01\x00" + len(text).to_bytes(2, "little") + text + array.tobytes()


FORMAT = _Npy()


class _Header(NamedTuple):
    """What a header says, and where the array's bytes begin and end."""

    descr: str
    fortran: bool
    shape: tuple[int, ...]
    start: int
    end: int


def _matrix(
    data: bytes | memoryview, position: int, where: str | None, labels: int, limits: Limits
) -> tuple[NDArray[np.float32], int]:
    """The array that begins at `position`, as records, and where it ends."""
    import numpy as np

    header = _header(data, position, where)
    descr, fortran, shape, start, end = header
    if end > len(data):
        raise _cut_off(header, len(data) - start, position, where)
    count, width = _dimensions(shape, where)
    limits.require(count, width - labels, where)
    array = np.frombuffer(data, descr, count * width, start)
    return to_float32(_rows(array, count, width, shape if fortran else None)), end


def _with_others(
    first: NDArray[np.float32], data: bytes | memoryview, end: int, where: str | None,
    labels: int, limits: Limits,
) -> NDArray[np.float32]:
    """The arrays that follow the first one, below it."""
    import numpy as np

    matrices = [first]
    records = len(first)
    while end < len(data):
        matrix, end = _matrix(data, end, where, labels, limits)
        if matrix.shape[1] != first.shape[1]:
            raise _unlike(matrix.shape[1], first.shape[1], place(where, records + 1))
        matrices.append(matrix)
        records += len(matrix)
    return np.concatenate(matrices)


def _blocks(
    read: Callable[[int], bytes], where: str, size: int
) -> Iterator[NDArray[np.float32]]:
    """Blocks of rows, of about `size` bytes in the stream, out of the arrays that follow."""
    import numpy as np

    position = records = width = 0
    while head := read(_HEAD_BYTES):
        here = Part(where, 0, position)
        length = _header_length(head, 0, here)
        header = _header(head if length is None else head + read(length - len(head)), 0, here)
        count, columns_ = _dimensions(header.shape, where)
        width = width or columns_
        if columns_ != width:
            raise _unlike(columns_, width, place(where, records + 1))
        whole = header.end - header.start
        row = whole // count
        step = count if header.fortran else max(1, size // row)
        for first in range(0, count, step):
            rows = min(step, count - first)
            data = _up_to(read, rows * row)
            if len(data) < rows * row:
                raise _cut_off(header, first * row + len(data), 0, here)
            array = np.frombuffer(data, header.descr, rows * width)
            yield to_float32(_rows(array, rows, width, header.shape if header.fortran else None))
        records += count
        position += header.end


def _up_to(read: Callable[[int], bytes], size: int) -> bytes | bytearray:
    """So many bytes or fewer: what a header claims is not set aside before it is there."""
    if size <= _CHUNK_BYTES:
        return read(size)
    data = bytearray()
    while block := read(min(_CHUNK_BYTES, size - len(data))):
        data += block
    return data


def _dimensions(shape: tuple[int, ...], where: str | None) -> tuple[int, int]:
    """Records and columns."""
    width = math.prod(shape[1:]) if len(shape) > 1 else math.prod(shape)
    if not shape or width == 0:
        raise DataError(
            "RECORD_WIDTH", f"the array has shape {str(shape)[:200]}", where=where,
            expected="an array (records, columns) or (records, …), or (columns,) for one record",
        )
    if shape[0] == 0:
        raise body_empty(where, _Npy.sample)
    return (shape[0], width) if len(shape) > 1 else (1, width)


def _rows(
    array: NDArray[Any], count: int, width: int, fortran: tuple[int, ...] | None
) -> NDArray[Any]:
    """The values as records; `fortran`: the shape of an array that is stored column by column."""
    if fortran is not None and len(fortran) > 1:
        array = array.reshape(fortran, order="F")
    return array.reshape((count, width))


def _unlike(width: int, first: int, where: str | None) -> DataError:
    return DataError(
        "RECORD_WIDTH", f"has {columns(width)}, expected {first}", where=where,
        expected="as many columns as record 1 has",
    )


def _cut_off(header: _Header, found: int, position: int, where: str | None) -> DataError:
    return _malformed(
        f"{found} bytes follow the header; {header.descr} of shape {str(header.shape)[:200]} has"
        f" {header.end - header.start}", position, where,
    )


def _header_length(data: bytes | memoryview, position: int, where: str | None) -> int | None:
    """The bytes of the header that begins at `position`; None if the data ends too early to say."""
    head = bytes(data[position:position + _HEAD_BYTES])
    if not head.startswith(_MAGIC[:len(head)]):
        raise _malformed("it does not begin as a .npy file does", position, where)
    if len(head) < _HEAD_BYTES:
        return None
    if head[6] not in (1, 2, 3):
        raise _malformed(f"its .npy version {head[6]}.{head[7]} is not known", position, where)
    length_bytes = 2 if head[6] == 1 else 4
    length = int.from_bytes(head[8:8 + length_bytes], "little")
    if length > _HEADER_LIMIT:
        raise _malformed("its header is longer than any numeric array's", position, where)
    return 8 + length_bytes + length


def _header_end(data: bytes | memoryview, position: int, where: str | None) -> int | None:
    """Where the header that begins at `position` ends; None if the data ends before."""
    length = _header_length(data, position, where)
    if length is None or position + length > len(data):
        return None
    return position + length


def _header(data: bytes | memoryview, position: int, where: str | None) -> _Header:
    end = _header_end(data, position, where)
    if end is None:
        raise _malformed("its header is cut off", position, where)
    start = position + (10 if data[position + 6] == 1 else 12)
    try:
        descr, fortran, shape = _read_header(bytes(data[start:end]))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise _malformed(
            "its header is no dict of descr, fortran_order and shape", position, where
        ) from None
    if not _NUMERIC.fullmatch(descr):
        what = "an array of Python objects, which is a pickle and is never loaded"
        raise DataError(
            "BODY_MALFORMED", what if "O" in descr else f"an array of type {descr}", where=where,
            expected="an array of integers, floats or booleans",
            remedy="convert it before saving: array.astype(numpy.float32)",
        )
    return _Header(descr, fortran, shape, end, end + math.prod(shape) * int(descr[-1]))


@lru_cache(maxsize=128)
def _read_header(text: bytes) -> tuple[str, bool, tuple[int, ...]]:
    # A client sends the same few shapes again and again; parsing costs more than the array.
    header = ast.literal_eval(text.decode("utf-8").strip())
    if not isinstance(header, dict) or set(header) != {"descr", "fortran_order", "shape"}:
        raise ValueError
    descr, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    if not isinstance(fortran, bool) or not isinstance(shape, tuple) or not all(
        type(length) is int and length >= 0 for length in shape
    ):
        raise ValueError
    return descr if isinstance(descr, str) else repr(descr), fortran, shape


def _joined(predictions: Any) -> NDArray[Any]:
    import numpy as np

    normal = shapes.normalise(predictions)
    columns = list(normal.values()) if isinstance(normal, dict) else [normal]
    arrays = [_array(column) for column in columns]
    if len(arrays) == 1:
        return arrays[0]
    return np.concatenate([shapes.flat(array) for array in arrays], axis=1)


def _array(column: NDArray[Any] | list[Any]) -> NDArray[Any]:
    import numpy as np

    if not isinstance(column, list):
        return column
    try:
        array = np.array(column)
    except ValueError:
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "biuf":
        raise shapes.not_encodable(
            "values that make no numeric array", "numbers, for Accept application/x-npy"
        )
    return array


def _malformed(message: str, position: int, where: str | None) -> DataError:
    spot = byte(where, position) if position or isinstance(where, Part) else ""
    return DataError("BODY_MALFORMED", message + spot, where=where, expected=_EXPECTED)
