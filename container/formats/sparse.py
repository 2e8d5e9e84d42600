"""Sparse records as dense rows, within limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from byoa.container.errors import DataError
from byoa.container.formats.base import columns, place
from byoa.container.formats.limits import Limits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Row: TypeAlias = "Sparse | NDArray[np.float32]"

__all__ = ["Sparse", "sparse", "stack"]

# No width that is taken is near it, and the product of very many dimensions would take minutes.
_WIDTH_END = 1 << 64


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
    width = _product(shape)
    outside = next((key for key in keys if key >= width), None)
    if outside is not None:
        shown = str(list(shape[:8]))[:200]
        raise _invalid(f"key {str(outside)[:60]} is outside of shape {shown}", where)
    if len(set(keys)) != len(keys):
        raise _invalid("a key occurs twice", where)
    return Sparse(list(keys), values, width)


def stack(rows: Sequence[Row], where: str | None, limits: Limits) -> NDArray[np.float32]:
    """Rows of one width as (records, columns). Raises DataError RECORD_WIDTH, LimitExceeded."""
    import numpy as np

    width = _width(rows[0])
    for number, row in enumerate(rows, 1):
        if _width(row) != width or not width:
            raise DataError(
                "RECORD_WIDTH",
                f"has {columns(_width(row))}, expected {width or 'at least 1'}",
                where=place(where, number), expected="as many values as record 1 has",
            )
    limits.require(len(rows), width, where)
    matrix = np.zeros((len(rows), width), dtype=np.float32)
    for target, row in zip(matrix, rows, strict=True):
        if isinstance(row, Sparse):
            target[row.keys] = row.values
        else:
            target[:] = row
    return matrix


def _width(row: Row) -> int:
    return row.width if isinstance(row, Sparse) else len(row)


def _product(shape: Sequence[int]) -> int:
    width = 0 if 0 in shape else 1
    for length in shape:
        width = min(width * length, _WIDTH_END)
    return width


def _whole(values: Any) -> bool:
    return isinstance(values, (list, tuple)) and all(
        type(value) is int and value >= 0 for value in values
    )


def _invalid(message: str, where: str | None) -> DataError:
    return DataError(
        "SPARSE_INVALID", message, where=where,
        expected='keys below the shape, such as {"keys": [7], "shape": [9], "values": [2.5]}',
    )
