"""application/x-npy: one NumPy array, float32 (records, columns) at its best.

The header is read here, not by numpy: object arrays are pickles, which run code, and are never
loaded; a shape is believed only when exactly that many bytes follow.
"""

from __future__ import annotations

import ast
import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from byoa.container.errors import DataError
from byoa.container.formats import predictions as shapes
from byoa.container.formats.base import (
    Batch,
    Format,
    body_empty,
    label_size_of,
    split_labels,
    to_float32,
)
from byoa.container.media_types import MediaType

if TYPE_CHECKING:
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
        """An array (records, columns); one dimension is one record."""
        import numpy as np

        if not len(data):
            raise body_empty(where, self.sample)
        descr, fortran, shape, start = _header(data, where)
        dtype = np.dtype(descr)
        size = math.prod(shape) * dtype.itemsize
        if len(data) - start != size:
            raise _malformed(
                f"{len(data) - start} bytes follow the header; {descr} of shape {shape} has {size}",
                where,
            )
        if len(shape) not in (1, 2) or shape[-1] == 0:
            raise DataError(
                "RECORD_WIDTH", f"the array has shape {shape}", where=where,
                expected="an array (records, columns), or (columns,) for one record",
            )
        if shape[0] == 0:
            raise body_empty(where, self.sample)
        array = np.frombuffer(data, dtype=dtype, offset=start)
        if len(shape) == 1:
            matrix = to_float32(array.reshape(1, -1))
        else:
            matrix = to_float32(array.reshape(shape, order="F" if fortran else "C"))
        return split_labels(matrix, label_size_of(media, label_size), where)

    def encode(self, predictions: Any, media: MediaType | None = None) -> bytes:
        """The array as it is; several columns are flattened side by side into one (n, k)."""
        array = _joined(predictions)
        descr, shape = array.dtype.str, array.shape
        header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}"
        fill = -(len(_MAGIC) + 4 + len(header) + 1) % _ALIGNMENT
        text = f"{header}{' ' * fill}\n".encode("latin-1")
        return _MAGIC + b"\x01\x00" + len(text).to_bytes(2, "little") + text + array.tobytes()


FORMAT = _Npy()


def _header(data: bytes | memoryview, where: str | None) -> tuple[str, bool, tuple[int, ...], int]:
    """dtype, Fortran order, shape, and where the array's bytes begin."""
    head = bytes(data[:12])
    if head[:6] != _MAGIC or len(head) < 12:
        raise _malformed("it does not begin as a .npy file does", where)
    if head[6] not in (1, 2, 3):
        raise _malformed(f"its .npy version {head[6]}.{head[7]} is not known", where)
    length_bytes = 2 if head[6] == 1 else 4
    start = 8 + length_bytes
    end = start + int.from_bytes(head[8:start], "little")
    if end - start > _HEADER_LIMIT or end > len(data):
        raise _malformed("its header is cut off or longer than any numeric array's", where)
    try:
        descr, fortran, shape = _read_header(bytes(data[start:end]))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise _malformed("its header is no dict of descr, fortran_order and shape", where) from None
    if not _NUMERIC.fullmatch(descr):
        what = "an array of Python objects, which is a pickle and is never loaded"
        raise DataError(
            "BODY_MALFORMED", what if "O" in descr else f"an array of type {descr}", where=where,
            expected="an array of integers, floats or booleans",
            remedy="convert it before saving: array.astype(numpy.float32)",
        )
    return descr, fortran, shape, end


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


def _malformed(message: str, where: str | None) -> DataError:
    return DataError("BODY_MALFORMED", message, where=where, expected=_EXPECTED)
