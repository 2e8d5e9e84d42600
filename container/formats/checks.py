"""Checks of a decoded batch against the model: finite values and the expected width.

Both are cheap on the good path and name record and column, counted from 1, on the bad one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from byoa.container.errors import DataError
from byoa.container.formats.base import place
from byoa.container.formats.limits import wrong_width

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["require_finite", "require_width"]


def require_finite(
    features: NDArray[np.float32], where: str | None = None, *, first_record: int = 1,
    first_column: int = 1,
) -> None:
    """Raise DataError VALUE_NOT_FINITE for the first NaN or infinity of (records, columns).

    `first_column` is the file's number of the first feature: 2 behind one label column.
    """
    import numpy as np

    finite = np.isfinite(features)
    if finite.all():
        return
    record, column = (int(index) for index in np.argwhere(~finite)[0])
    raise DataError(
        "VALUE_NOT_FINITE",
        f"{features[record, column]} is not a finite number",
        where=place(where, record + first_record, column + first_column),
        expected="a finite number that float32 can hold",
    )


def require_width(features: NDArray[np.float32], n: int, where: str | None = None) -> None:
    """Raise DataError RECORD_WIDTH unless the records (records, columns) have `n` columns.

    A batch is a rectangle, so its first record speaks for all.
    """
    width = features.shape[1]
    if width != n:
        raise wrong_width(width, n, place(where, 1))
