"""application/json: one document for all records, and its record forms, shared with JSON Lines.

    [[1, 2], [3, 4]]                                    records
    [1, 2]                                              one record
    {"instances": [record, record]}                     records
    {"features": [1, 2], "label": 3}                    one record
    {"data": {"features": {"values": [1, 2]}}}          one record, as the built-in algorithms
    {"data": {"features": {"keys": [7], "shape": [9], "values": [2]}}}   sparse

null is a missing value and becomes NaN; answers write NaN and infinities as null. A member that
none of these forms has is refused, because a value that changes nothing misleads its sender.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from byoa.container.errors import DataError
from byoa.container.formats import predictions as shapes
from byoa.container.formats.base import (
    Batch,
    Format,
    body_empty,
    columns,
    label_size_of,
    packed,
    place,
    split_labels,
    sub_place,
    to_float32,
    to_utf8,
)
from byoa.container.formats.json_text import dumps, items, loads
from byoa.container.formats.limits import LIMITS, Limits
from byoa.container.formats.number_text import document
from byoa.container.formats.sparse import Sparse, sparse, stack
from byoa.container.media_types import MediaType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FORMAT", "answers", "assemble", "malformed"]

_FORMS = (
    '{"instances": [{"features": [1.5, 2.0]}]}, {"instances": [[1.5, 2.0]]}, [[1.5, 2.0]],'
    ' [1.5, 2.0], {"features": [1.5, 2.0]} or'
    ' {"instances": [{"data": {"features": {"values": [1.5, 2.0]}}}]}'
)


class _Json(Format):
    name = "json"
    media_types = ("application/json",)
    suffixes = (".json",)
    sample = '{"instances": [{"features": [1.5, 2.0]}]}'
    answer_parameters = {"charset": ("utf-8",)}

    def decode(
        self,
        data: bytes | memoryview,
        media: MediaType | None = None,
        *,
        label_size: int = 0,
        where: str | None = None,
        limits: Limits = LIMITS,
    ) -> Batch:
        """The records of one document in any of the forms above."""
        body = to_utf8(data, media, where)
        numbers = document(body)
        if numbers is not None:
            return split_labels(numbers, label_size_of(media, label_size), where, limits)
        if not body.strip():
            raise body_empty(where, self.sample)
        try:
            parsed = loads(body)
        except ValueError as error:
            raise malformed(f"it is not JSON: {error}", where) from None
        records = _records(parsed, where)
        if not records:
            raise body_empty(where, self.sample)
        return assemble(records, label_size_of(media, label_size), where, limits)

    def encode(self, predictions: Any, media: MediaType | None = None) -> bytes:
        """`{"predictions": [...]}`, one item a record; columns give one object a record."""
        return dumps({"predictions": answers(predictions)})


FORMAT = _Json()


def answers(predictions: Any) -> NDArray[Any] | list[Any]:
    """One JSON value a record, an object where the predictions are columns."""
    normal = shapes.normalise(predictions)
    if not isinstance(normal, dict):
        return items(normal)
    names, values = list(normal), [items(column) for column in normal.values()]
    return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def malformed(message: str, where: str | None) -> DataError:
    return DataError("BODY_MALFORMED", message, where=where, expected=_FORMS)


def _records(document: Any, where: str | None) -> list[Any]:
    if isinstance(document, list):
        single = document and not isinstance(document[0], (list, dict))
        return [document] if single else document
    if isinstance(document, dict):
        if "instances" not in document:
            return [document]
        _only(document, ("instances",), where)
        if isinstance(document["instances"], list):
            return list(document["instances"])
        raise malformed("instances is not an array", where)
    raise malformed(f"the document is {_kind(document)}", where)


def assemble(
    records: Sequence[Any], label_size: int, where: str | None, limits: Limits
) -> Batch:
    """Parsed records as a batch. Labels are named, or the leading columns of bare arrays."""
    if all(type(record) is list for record in records):
        return split_labels(_matrix(records, where), label_size, where, limits)
    rows: list[Any] = []
    labels: list[Any] = []
    for number, record in enumerate(records, 1):
        row, label = _row(record, place(where, number))
        rows.append(row)
        if label is not None:
            labels.append(label)
        if labels and len(labels) < number:
            raise DataError(
                "LABEL_MISSING", "some records have a label and some have none",
                where=place(where, number), expected="a label in every record or in none",
            )
    if any(isinstance(row, Sparse) for row in rows):
        features = stack([
            row if isinstance(row, Sparse) else _vector(row, place(where, number))
            for number, row in enumerate(rows, 1)
        ], where, limits)
    else:
        features = _matrix(rows, where)
        limits.require(len(rows), features.shape[1], where)
    return Batch(features, _labels(labels, where) if labels else None)


def _row(record: Any, where: str | None) -> tuple[Any, Any]:
    """The features and the label of one record, not yet checked to be numbers."""
    if not isinstance(record, dict):
        if isinstance(record, list):
            raise malformed("is a bare array among objects", where)
        raise malformed(f"is {_kind(record)}", where)
    label = record.get("label")
    if "data" in record:
        _only(record, ("data", "label"), where)
        record = record["data"]
        if not isinstance(record, dict):
            raise malformed(f"data is {_kind(record)}, not an object", where)
    if "features" not in record:
        raise malformed("has no features", where)
    _only(record, ("features", "label"), where)
    return _values(record["features"], "features", where), record.get("label", label)


def _values(value: Any, name: str, where: str | None) -> Any:
    """An array of numbers out of `[…]`, `{"values": […]}` or the sparse form."""
    if isinstance(value, dict):
        if not isinstance(value.get("values"), list):
            raise malformed(f"{name} has no array of values", where)
        _only(value, ("values", "keys", "shape"), where)
        if value.get("keys") is None:
            return value["values"]
        return sparse(value["keys"], _vector(value["values"], where), value.get("shape"), where)
    if isinstance(value, list):
        return value
    raise malformed(f"{name} is {_kind(value)}, not an array", where)


def _labels(labels: list[Any], where: str | None) -> NDArray[np.float32]:
    rows = [
        [label] if not isinstance(label, (list, dict))
        else _values(label, "label", place(where, number))
        for number, label in enumerate(labels, 1)
    ]
    matrix = _matrix(rows, sub_place(where, "label of"))
    return matrix[:, 0].copy() if matrix.shape[1] == 1 else matrix


def _vector(values: list[Any], where: str | None) -> NDArray[np.float32]:
    return to_float32([_number(value, where, column) for column, value in enumerate(values, 1)])


def _matrix(rows: Sequence[list[Any]], where: str | None) -> NDArray[np.float32]:
    width = len(rows[0])
    for number, row in enumerate(rows, 1):
        if len(row) != width or not row:
            raise DataError(
                "RECORD_WIDTH",
                f"has {columns(len(row))}, expected {width or 'at least 1'}",
                where=place(where, number), expected="as many numbers as record 1 has",
            )
    # Types first: numpy would take true, and strings of digits, for numbers.
    values = rows[0] if len(rows) == 1 else list(chain.from_iterable(rows))
    if set(map(type, values)) <= {int, float}:
        try:
            return packed(values).reshape(len(rows), width)
        except OverflowError:  # an integer beyond float64
            pass
    return to_float32([
        [_number(value, place(where, number), column) for column, value in enumerate(row, 1)]
        for number, row in enumerate(rows, 1)
    ])


def _number(value: Any, where: str | None, column: int) -> float:
    if value is None:
        return float("nan")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return float("inf") if value > 0 else float("-inf")
    shown = repr(value)[:60] if isinstance(value, str) else _kind(value)
    raise DataError(
        "RECORD_NOT_A_NUMBER", f"{shown} is not a number",
        where=f"{where}, column {column}" if where else f"column {column}",
        expected="a JSON number",
    )


def _only(document: dict[str, Any], names: tuple[str, ...], where: str | None) -> None:
    unknown = [name for name in document if name not in names]
    if unknown:
        raise malformed(f"has an unknown member {unknown[0][:60]!r}", where)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    names = {str: "a string", int: "a number", float: "a number", list: "an array",
             dict: "an object", type(None): "null"}
    return names[type(value)]
