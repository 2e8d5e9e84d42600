"""Parquet, by pyarrow (the extra `parquet`): a row is a record, a column of numbers a feature.

Numbers and booleans are read, null is a missing value and becomes NaN; a column of any other type
is refused by name. Columns count from the left, whatever they are called, and the leading one is
the label as in CSV.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from byoa.container.errors import DataError
from byoa.container.formats import predictions as shapes
from byoa.container.formats.base import (
    Batch,
    Format,
    body_empty,
    label_size_of,
    not_installed,
    place,
    split_labels,
)
from byoa.container.formats.limits import LIMITS, Limits
from byoa.container.media_types import MediaType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FORMAT"]

_EXPECTED = "a whole Parquet file with a column for each feature"
_BATCH_ROWS = 1 << 16


class _Parquet(Format):
    name = "parquet"
    media_types = ("application/x-parquet", "application/vnd.apache.parquet")
    suffixes = (".parquet",)
    sample = "the bytes of a Parquet file, a column of numbers for each feature"

    def decode(
        self,
        data: bytes | memoryview,
        media: MediaType | None = None,
        *,
        label_size: int = 0,
        where: str | None = None,
        limits: Limits = LIMITS,
    ) -> Batch:
        """All row groups of one file, columns in their order."""
        if not len(data):
            raise body_empty(where, self.sample)
        arrow, parquet = _pyarrow(where)
        try:
            file = parquet.ParquetFile(arrow.BufferReader(data))
            labels = label_size_of(media, label_size)
            _check(arrow, file, where, labels, limits)
            matrix = _read(arrow, file, where)
        except (arrow.ArrowException, OSError, OverflowError) as error:
            raise _malformed(f"it cannot be read: {str(error)[:300]}", where) from None
        return split_labels(matrix, labels, where, limits)

    def encode(self, predictions: Any, media: MediaType | None = None) -> bytes:
        """A column for each column of the predictions: `prediction`, or `score_0`, `score_1` …"""
        arrow, parquet = _pyarrow(None)
        normal = shapes.normalise(predictions)
        named = normal if isinstance(normal, dict) else {"prediction": normal}
        columns: dict[str, Any] = {}
        for name, column in named.items():
            columns.update(_columns(name, column))
        try:
            table = arrow.table(columns)
            sink = arrow.BufferOutputStream()
            parquet.write_table(table, sink)
        except (arrow.ArrowException, OverflowError, UnicodeEncodeError) as error:
            raise shapes.not_encodable(
                f"a column that Parquet does not have ({str(error)[:200]})",
                "columns of one type each, or Accept application/json",
            ) from None
        return bytes(sink.getvalue())


FORMAT = _Parquet()


def _pyarrow(where: str | None) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise not_installed("pyarrow", "parquet", where) from None
    return pyarrow, pyarrow.parquet


def _check(arrow: Any, file: Any, where: str | None, labels: int, limits: Limits) -> None:
    """What the file's footer says: names and types, and how much would be read."""
    index = _pandas_index(file.schema_arrow.metadata)
    for number, field in enumerate(file.schema_arrow, 1):
        here, name = place(where, column=number), repr(field.name[:60])
        if field.name in index:
            raise DataError(
                "COLUMN_UNEXPECTED", f"column {name} is the index of a pandas DataFrame",
                where=here, expected="columns of features, after the label's",
                remedy="write the file with DataFrame.to_parquet(…, index=False)",
            )
        if not _numeric(arrow.types, field.type):
            raise DataError(
                "RECORD_NOT_A_NUMBER", f"column {name} has type {str(field.type)[:200]}",
                where=here, expected="columns of integers, floats, decimals or booleans",
                remedy="convert it to numbers, or leave it out",
            )
    if not file.metadata.num_rows:
        raise body_empty(where, _Parquet.sample)
    if not len(file.schema_arrow):
        raise DataError("RECORD_WIDTH", "there is no column", where=where, expected=_EXPECTED)
    limits.require(file.metadata.num_rows, len(file.schema_arrow) - labels, where)


def _pandas_index(metadata: Mapping[bytes, bytes] | None) -> Sequence[Any]:
    """The columns that are a DataFrame's index: pandas reads them as none."""
    try:
        index = json.loads((metadata or {})[b"pandas"])["index_columns"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return ()
    return index if isinstance(index, list) else ()


def _numeric(types: Any, of: Any) -> bool:
    return bool(
        types.is_integer(of) or types.is_floating(of) or types.is_boolean(of)
        or types.is_decimal(of) or types.is_null(of)
    )


def _read(arrow: Any, file: Any, where: str | None) -> NDArray[np.float32]:
    import numpy as np

    rows = 0
    matrix = np.empty((file.metadata.num_rows, len(file.schema_arrow)), dtype=np.float32)
    with np.errstate(over="ignore"):
        for batch in file.iter_batches(_BATCH_ROWS):
            if rows + batch.num_rows > len(matrix):
                break
            target = matrix[rows:rows + batch.num_rows]
            for number, column in enumerate(batch.columns):
                target[:, number] = _numbers(arrow, column)
            rows += batch.num_rows
    if rows != len(matrix):
        raise _malformed(f"the footer says {len(matrix)} rows, there are others", where)
    return matrix


def _numbers(arrow: Any, column: Any) -> Any:
    """A column as an array of numbers, NaN for null."""
    if arrow.types.is_floating(column.type) and not column.null_count:
        return column.to_numpy(zero_copy_only=False)
    # As every format does: read as float64, then rounded.
    return column.cast(arrow.float64(), safe=False).to_numpy(zero_copy_only=False)


def _columns(name: str, column: NDArray[Any] | list[Any]) -> Mapping[str, Any]:
    if isinstance(column, list):
        return {name: shapes.plain(column)}
    if column.ndim == 1:
        return {name: column}
    return {f"{name}_{index}": each for index, each in enumerate(shapes.flat(column).T)}


def _malformed(message: str, where: str | None) -> DataError:
    return DataError("BODY_MALFORMED", message, where=where, expected=_EXPECTED)
