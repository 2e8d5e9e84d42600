"""Sparse records as dense rows, within a bound: a few bytes must not become gigabytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from byoa.container.errors import DataError
from byoa.container.formats.base import columns, place

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Row: TypeAlias = "Sparse | NDArray[np.float32]"

__all__ = ["MAX_DENSE_CELLS", "Sparse", "require_room", "sparse", "stack"]

MAX_DENSE_CELLS = 1 << 28  # 1 GiB of float32


class Sparse(NamedTuple):
    """values[i] at column keys[i], counted from 0; zero in the other columns."""

    keys: list[int]
    values: NDArray[np.float32]
    width: int


def sparse(keys: Any, values: NDArray[np.float32], shape: Any, where: str | None) -> Sparse:
    """A checked sparse record; several dimensions are flattened in C order.

    Raises DataError SPARSE_INVALID.
    """
    if not _whole(shape) or not shape:
        raise _invalid("shape is missing or no array of whole numbers", where)
    if not _whole(keys) or len(keys) != len(values):
        raise _invalid("keys and values are not arrays of one length", where)
    width = math.prod(shape)
    outside = next((key for key in keys if key >= width), None)
    if outside is not None:
        raise _invalid(f"key {outside} is outside of shape {list(shape)}", where)
    if len(set(keys)) != len(keys):
        raise _invalid("a key occurs twice", where)
    return Sparse(list(keys), values, width)


def require_room(records: int, width: int, where: str | None) -> None:
    """Raise DataError RECORD_TOO_WIDE where dense records would be more than `MAX_DENSE_CELLS`."""
    if records * width > MAX_DENSE_CELLS:
        raise DataError(
            "RECORD_TOO_WIDE",
            f"{records} records of {columns(width)} are too many for dense records", where=where,
            expected=f"at most {MAX_DENSE_CELLS} values in one body or file",
            remedy="send fewer records at once, or map the features to fewer columns",
        )


def stack(rows: Sequence[Row], where: str | None) -> NDArray[np.float32]:
    """Rows of one width as (records, columns). Raises DataError RECORD_WIDTH, RECORD_TOO_WIDE."""
    import numpy as np

    width = _width(rows[0])
    for number, row in enumerate(rows, 1):
        if _width(row) != width or not width:
            raise DataError(
                "RECORD_WIDTH",
                f"has {columns(_width(row))}, expected {width or 'at least 1'}",
                where=place(where, number), expected="as many values as record 1 has",
            )
    require_room(len(rows), width, where)
    matrix = np.zeros((len(rows), width), dtype=np.float32)
    for target, row in zip(matrix, rows, strict=True):
        if isinstance(row, Sparse):
            target[row.keys] = row.values
        else:
            target[:] = row
    return matrix


def _width(row: Row) -> int:
    return row.width if isinstance(row, Sparse) else len(row)


def _whole(values: Any) -> bool:
    return isinstance(values, (list, tuple)) and all(
        type(value) is int and value >= 0 for value in values
    )


def _invalid(message: str, where: str | None) -> DataError:
    return DataError(
        "SPARSE_INVALID", message, where=where,
        expected='keys below the shape, such as {"keys": [7], "shape": [9], "values": [2.5]}',
    )
