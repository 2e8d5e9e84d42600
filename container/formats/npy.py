"""application/x-npy: one NumPy array, float32 (records, columns) at its best.

The header is read here, not by numpy: object arrays are pickles, which run code, and are never
loaded; a shape is believed only when exactly that many bytes follow.
"""

from __future__ import annotations

import ast
import math
import re
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
from byoa.container.media_types import MediaType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FORMAT"]

_MAGIC = b"\x93NUMPY"
_ALIGNMENT = 64  # of the data, so that it can be mapped
_HEADER_LIMIT = 10_000
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
    ) -> Batch:
        """An array (records, columns), or several of one width one after the other, as
        concatenated files are; an array of one dimension is one record."""
        if not len(data):
            raise body_empty(where, self.sample)
        matrix, end = _matrix(data, 0, where)
        if end < len(data):
            matrix = _with_others(matrix, data, end, where)
        return split_labels(matrix, label_size_of(media, label_size), where)

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
    data: bytes | memoryview, position: int, where: str | None
) -> tuple[NDArray[np.float32], int]:
    """The array that begins at `position`, as records, and where it ends."""
    import numpy as np

    descr, fortran, shape, start, end = _header(data, position, where)
    if end > len(data):
        raise _malformed(
            f"{len(data) - start} bytes follow the header; {descr} of shape {shape} has"
            f" {end - start}", position, where,
        )
    if len(shape) not in (1, 2) or shape[-1] == 0:
        raise DataError(
            "RECORD_WIDTH", f"the array has shape {shape}", where=where,
            expected="an array (records, columns), or (columns,) for one record",
        )
    if shape[0] == 0:
        raise body_empty(where, _Npy.sample)
    array = np.frombuffer(data, descr, math.prod(shape), start)
    shape = shape if len(shape) == 2 else (1, shape[0])
    return to_float32(array.reshape(shape, order="F" if fortran else "C")), end


def _with_others(
    first: NDArray[np.float32], data: bytes | memoryview, end: int, where: str | None
) -> NDArray[np.float32]:
    """The arrays that follow the first one, below it."""
    import numpy as np

    matrices = [first]
    records = len(first)
    while end < len(data):
        matrix, end = _matrix(data, end, where)
        if matrix.shape[1] != first.shape[1]:
            raise DataError(
                "RECORD_WIDTH", f"has {columns(matrix.shape[1])}, expected {first.shape[1]}",
                where=place(where, records + 1), expected="as many columns as record 1 has",
            )
        matrices.append(matrix)
        records += len(matrix)
    return np.concatenate(matrices)


def _header_end(data: bytes | memoryview, position: int, where: str | None) -> int | None:
    """Where the header that begins at `position` ends; None if the data ends before."""
    head = bytes(data[position:position + 12])
    if not head.startswith(_MAGIC[:len(head)]):
        raise _malformed("it does not begin as a .npy file does", position, where)
    if len(head) < 12:
        return None
    if head[6] not in (1, 2, 3):
        raise _malformed(f"its .npy version {head[6]}.{head[7]} is not known", position, where)
    length_bytes = 2 if head[6] == 1 else 4
    length = int.from_bytes(head[8:8 + length_bytes], "little")
    if length > _HEADER_LIMIT:
        raise _malformed("its header is longer than any numeric array's", position, where)
    end = position + 8 + length_bytes + length
    return end if end <= len(data) else None


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
