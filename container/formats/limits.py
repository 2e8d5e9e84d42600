"""How much a body or file may hold once it is decoded: a few bytes must not become gigabytes.

What names its size, a header, a footer or a sparse index, is checked before memory is taken for it;
text, which takes as many bytes as it has values, when it has been read.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

from byoa.container.errors import DataError

__all__ = ["LIMITS", "MAX_DENSE_VALUES", "LimitExceeded", "Limits", "columns", "wrong_width"]

MAX_DENSE_VALUES = 1 << 28  # 1 GiB of float32


class LimitExceeded(DataError):
    """More than a limit allows: HTTP 413. `what` is the limit's name in `Limits`."""

    def __init__(
        self, code: str, message: str, what: str, size: int, limit: int, *,
        where: str | None, expected: str, remedy: str,
    ) -> None:
        super().__init__(code, message, where=where, expected=expected, remedy=remedy)
        self.what = what
        self.size = size
        self.limit = limit


class Limits(NamedTuple):
    """Of one body or file. `features`: how many columns the model takes, where that is known."""

    records: int = sys.maxsize
    columns: int = sys.maxsize  # of a record, without its labels
    values: int = MAX_DENSE_VALUES  # records × columns
    features: int | None = None

    def require(self, records: int, width: int, where: str | None = None) -> None:
        """Raise LimitExceeded where `records` of `width` columns are too much; DataError
        RECORD_WIDTH where no record of that width fits the model."""
        if (
            width <= self.columns and records <= self.records and records * width <= self.values
            and (self.features is None or width <= self.features)
        ):
            return
        if self.features is not None and width > self.features:
            raise wrong_width(width, self.features, where)
        if width > self.columns:
            raise LimitExceeded(
                "RECORD_TOO_WIDE", f"has {columns(width)}, the limit is {self.columns}",
                "columns", width, self.columns, where=where or "record 1",
                expected=f"at most {columns(self.columns)} in a record",
                remedy="map the features to fewer columns",
            )
        if records > self.records:
            raise LimitExceeded(
                "RECORDS_TOO_MANY", f"there are {records} records, the limit is {self.records}",
                "records", records, self.records, where=where,
                expected=f"at most {self.records} records", remedy="send fewer records at once",
            )
        raise LimitExceeded(
            "VALUES_TOO_MANY",
            f"{records} records of {columns(width)} are {records * width} values, the limit is"
            f" {self.values}", "values", records * width, self.values, where=where,
            expected=f"at most {self.values} values (records × columns) in one body or file",
            remedy="send fewer records at once, or map the features to fewer columns",
        )


LIMITS = Limits()


def wrong_width(width: int, features: int, where: str | None = None) -> DataError:
    """What a record of `width` columns is told where the model takes `features`."""
    return DataError(
        "RECORD_WIDTH",
        f"has {columns(width)}, expected {features}",
        where=where or "record 1",
        expected=f"{features} features a record, as the model was trained on",
    )


def columns(count: int) -> str:
    """`1 column`, `5 columns`."""
    return "1 column" if count == 1 else f"{count} columns"
