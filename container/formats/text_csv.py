"""text/csv: RFC 4180 with `header`, `charset` and `label_size`; a record is a line of numbers.

Decoding tries a fast route for a single row, then one for a block of lines (formats.number_text). A
block that both refuse takes the exact route, cell by cell, which names what is wrong. An empty line
between records is a fault: answers stay aligned with lines.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from byoa.container.errors import DataError
from byoa.container.formats import predictions as shapes
from byoa.container.formats.base import (
    Batch,
    Format,
    body_empty,
    columns,
    label_size_of,
    parameter,
    place,
    split_labels,
    to_float32,
    to_utf8,
)
from byoa.container.formats.json_text import number_texts
from byoa.container.formats.limits import LIMITS, Limits
from byoa.container.formats.lines import whole_lines
from byoa.container.formats.number_text import exact, row, table
from byoa.container.media_types import MediaType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FORMAT"]

_HEADER = ("absent", "present")
# What is parsed takes some 10 times its text for a moment, and memory that is in use is quicker
# than new memory.
_BLOCK_BYTES = 1 << 18
_ROW_BYTES = 1 << 14  # of longer text the numbers take the time
# As numbers, which `in` finds in bytes in a fifth of the time that it takes for bytes.
_CR, _QUOTE = b'\r"'
_HEADER_REMEDY = "if the first line names the columns, send Content-Type text/csv; header=present"


class _Csv(Format):
    name = "csv"
    media_types = ("text/csv",)
    suffixes = (".csv",)
    sample = "1.5,2.0,-3"
    answer_parameters = {"charset": ("utf-8",), "header": _HEADER}

    def decode(
        self,
        data: bytes | memoryview,
        media: MediaType | None = None,
        *,
        label_size: int = 0,
        where: str | None = None,
        limits: Limits = LIMITS,
    ) -> Batch:
        """One record a line, all of one width; `nan` and `inf` are kept, an empty cell is not."""
        if len(data) <= _ROW_BYTES and isinstance(data, bytes) and not (media and media.parameters):
            single = row(data.rstrip(b"\r\n"))
            if single is not None:
                return split_labels(single, label_size, where, limits)
        body = to_utf8(data, media, where)
        if _CR in body:  # CRLF, or CR alone: then a line's end too
            body = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        body = body.rstrip(b"\n")
        header = parameter(media, "header", _HEADER, "absent") == "present"
        if header and _QUOTE in body:
            body, header = _without_header(body, where), False
        elif header:
            body = body.partition(b"\n")[2]
        if not body:
            raise body_empty(where, self.sample)
        if _QUOTE in body:
            matrix = to_float32(list(_quoted(body, where)))
        else:
            matrix = _decode(body, where)
        return split_labels(matrix, label_size_of(media, label_size), where, limits)

    def boundary(self, data: bytes | memoryview, media: MediaType | None = None) -> int | None:
        """Behind the last line. With headers None: those of later files look like records."""
        if parameter(media, "header", _HEADER, "absent") == "present":
            return None
        return whole_lines(data, media, quotes=True)

    def encode(self, predictions: Any, media: MediaType | None = None) -> bytes:
        """One line a record, columns in order and flattened; `header=present` names them."""
        normal = shapes.normalise(predictions)
        header = parameter(media, "header", _HEADER, "absent") == "present"
        if not (header or isinstance(normal, dict)):
            return b"\n".join([*_texts(normal), b""])
        named = normal if isinstance(normal, dict) else {"prediction": normal}
        lines = [b",".join(row) for row in zip(*map(_texts, named.values()), strict=True)]
        if header:
            names = [cell for each in named.items() for cell in _names(*each)]
            lines.insert(0, b",".join(names))
        return b"\n".join([*lines, b""])


FORMAT = _Csv()


def _decode(body: bytes, where: str | None) -> NDArray[np.float32]:
    """Unquoted text, without a trailing line end."""
    if len(body) <= _BLOCK_BYTES:
        block = table(body)
        return to_float32(list(_exact(body.split(b"\n"), where))) if block is None else block
    import numpy as np

    blocks: list[NDArray[np.float32]] = []
    records = 0
    width: int | None = None
    for text in _split(body):
        block = table(text)
        if block is None or block.shape[1] != (width or block.shape[1]):
            block = to_float32(list(_exact(text.split(b"\n"), where, records + 1, width)))
        width = block.shape[1]
        records += len(block)
        blocks.append(block)
    return np.concatenate(blocks)


def _split(body: bytes) -> Iterator[bytes]:
    """Pieces of about `_BLOCK_BYTES` that end at line ends, which are left out."""
    start = 0
    while start < len(body):
        end = body.find(b"\n", start + _BLOCK_BYTES)
        end = len(body) if end < 0 else end
        yield body[start:end]
        start = end + 1


def _exact(
    lines: Iterable[bytes], where: str | None, first: int = 1, width: int | None = None
) -> Iterator[list[float]]:
    """Each line's numbers. Raises DataError naming record and column."""
    for record, line in enumerate(lines, first):
        cells = line.split(b",")
        width = width or len(cells)
        yield _numbers(cells, record, width, where)


def _numbers(
    cells: Sequence[bytes | str], record: int, width: int, where: str | None
) -> list[float]:
    if len(cells) == 1 and not cells[0].strip():
        raise DataError(
            "RECORD_WIDTH", "the line is empty", where=place(where, record),
            expected=f"{width} number{'' if width == 1 else 's'}",
        )
    if len(cells) != width:
        raise DataError(
            "RECORD_WIDTH",
            f"has {columns(len(cells))}, expected {width}",
            where=place(where, record), expected="as many columns as record 1 has",
        )
    try:
        return exact(cells)
    except ValueError:
        return [_number(cell, record, column, where) for column, cell in enumerate(cells, 1)]


def _number(cell: bytes | str, record: int, column: int, where: str | None) -> float:
    try:
        return exact([cell])[0]
    except ValueError:
        text = cell.decode("utf-8", "replace") if isinstance(cell, bytes) else cell
        raise DataError(
            "RECORD_NOT_A_NUMBER",
            f"{text[:60]!r} is not a number" if text.strip() else "the cell is empty",
            where=place(where, record, column),
            expected="a decimal number",
            remedy=_HEADER_REMEDY if record == 1 else None,
        ) from None


def _rows(body: bytes, where: str | None) -> Iterator[tuple[int, list[str]]]:
    """The records of text with quoted cells, numbered from 1."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise DataError(
            "BODY_MALFORMED", f"is not UTF-8: {body[error.start]:#04x}, {error.reason}",
            where=place(where, line), expected="UTF-8, or the charset named in the content type",
        ) from None
    record = 0
    try:
        for record, row in enumerate(csv.reader(io.StringIO(text, newline=""), strict=True), 1):
            yield record, row
    except csv.Error as error:
        raise DataError(
            "BODY_MALFORMED", f"quotes are not closed or not at a cell's ends: {error}",
            where=place(where, record + 1), expected='quoted cells as in "1.5","2.0"',
        ) from None


def _quoted(body: bytes, where: str | None) -> Iterator[list[float]]:
    width = 0
    for record, cells in _rows(body, where):
        width = width or len(cells)
        yield _numbers(cells or [""], record, width or 1, where)


def _without_header(body: bytes, where: str | None) -> bytes:
    """What follows the first record, whose quoted names may hold line ends."""
    start = quotes = 0
    while start <= len(body):
        end = body.find(b"\n", start)
        end = len(body) if end < 0 else end
        quotes += body.count(b'"', start, end)
        if quotes % 2 == 0:
            return body[end + 1:]
        start = end + 1
    raise DataError(
        "BODY_MALFORMED", "a quote in the header is not closed", where=where,
        expected='names as in "a","b"',
    )


def _texts(column: NDArray[Any] | list[Any]) -> list[bytes]:
    """A column's part of each line."""
    if isinstance(column, list):
        return [b",".join(_cells(item)) for item in column]
    return number_texts(column if column.ndim < 3 else shapes.flat(column))


def _cells(value: Any) -> list[bytes]:
    """A prediction's cells: nested values one after the other, None as an empty cell."""
    if hasattr(value, "__array__"):
        array = shapes.native(value)
        if array.dtype.kind in "UO":
            return _cells(array.tolist())
        return number_texts(array.reshape(1, -1))[0].split(b",")
    if isinstance(value, (list, tuple)):
        return [cell for each in value for cell in _cells(each)]
    if isinstance(value, Mapping):
        return [cell for each in value.values() for cell in _cells(each)]
    if value is None:
        return [b""]
    if isinstance(value, bool):
        return [b"1" if value else b"0"]
    if isinstance(value, (int, float)):
        return [repr(value).encode()]
    if isinstance(value, str):
        return [_quote(value)]
    raise shapes.not_encodable(type(value).__name__)


def _names(column_name: str, column: NDArray[Any] | list[Any]) -> list[bytes]:
    """The header's cells: `score`, or `score_0`, `score_1` … where a record has several."""
    if isinstance(column, list):
        several = column and isinstance(column[0], (list, tuple, Mapping))
        width = len(_cells(column[0])) if several else 0
    else:
        several = column.ndim > 1
        width = math.prod(column.shape[1:])
    if not several:
        return [_quote(column_name)]
    return [_quote(f"{column_name}_{index}") for index in range(width)]


def _quote(text: str) -> bytes:
    if any(mark in text for mark in ',"\r\n'):
        text = '"' + text.replace('"', '""') + '"'
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise shapes.not_encodable("text that is not Unicode (a lone surrogate)") from None
