"""text/libsvm: `label index:value index:value … # comment`, a record a line; all else is zero.

Indices count from 0, as SageMaker's XGBoost reads them, or from 1 where the media type says
`first_index=1`; nothing is guessed, so that all files of a channel and all requests mean the same.
The width is the greatest index's column, or what `features=N` declares: a channel's files take the
widest one's. A label is read where there is one.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from byoa.container.errors import DataError
from byoa.container.formats.base import (
    Batch,
    Format,
    body_empty,
    columns,
    label_size_of,
    parameter,
    place,
    to_float32,
    to_utf8,
    whole_number,
)
from byoa.container.formats.limits import LIMITS, Limits
from byoa.container.formats.lines import whole_lines
from byoa.container.formats.number_text import exact
from byoa.container.media_types import MediaType, UnsupportedMediaType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FORMAT"]

_PAIR = "index:value, such as 7:0.5"
_NO_RECORD = re.compile(rb"(?:[ \t\r]*(?:#[^\n]*)?\n)+")


class _Libsvm(Format):
    name = "libsvm"
    media_types = ("text/libsvm", "text/x-libsvm")
    suffixes = (".libsvm", ".svm")
    sample = "1 1:0.5 7:2"
    writes = False
    open_ended = True

    def decode(
        self,
        data: bytes | memoryview,
        media: MediaType | None = None,
        *,
        label_size: int = 0,
        where: str | None = None,
        limits: Limits = LIMITS,
    ) -> Batch:
        """Dense records. With `label_size` 1 each must begin with a label; with 0 all or none."""
        first = int(parameter(media, "first_index", ("0", "1"), "0"))
        declared = whole_number(media, "features", "the number of columns, such as features=64")
        required = label_size_of(media, label_size)
        if required > 1:
            raise UnsupportedMediaType(
                "MEDIA_TYPE_UNSUPPORTED", f"{required} labels a record of libsvm", where=where,
                expected="label_size=1, or label_size=0 for records without a label",
            )
        records = _read(to_utf8(data, media, where), where, limits)
        if not records.counts:
            raise body_empty(where, self.sample)
        labels = _labels(records, required == 1)
        return Batch(_dense(records, first, declared), labels)

    def boundary(self, data: bytes | memoryview, media: MediaType | None = None) -> int | None:
        """Behind the last line; 0 while there are comments and blank lines alone."""
        end = whole_lines(data, media)
        nothing = _NO_RECORD.match(data)
        return 0 if end and nothing and nothing.end() >= end else end


FORMAT = _Libsvm()


class _Records:
    """What the lines say: flat arrays, since Python's objects take several times the text."""

    def __init__(self, where: str | None, limits: Limits) -> None:
        self.where = where
        self.limits = limits
        self.labels: list[float | None] = []
        self.counts: list[int] = []
        self.indices = array("q")
        self.values = array("d")

    def add(self, tokens: list[bytes]) -> None:
        """One record."""
        here = place(self.where, len(self.counts) + 1) or ""
        if not tokens:
            raise DataError(
                "RECORD_WIDTH", "the line is empty", where=here,
                expected="a label, or pairs of index:value; # begins a comment",
            )
        self.labels.append(None if b":" in tokens[0] else _label(tokens.pop(0), here))
        try:
            indices, values = _pairs(tokens)
        except ValueError:
            raise _no_pair(tokens, here) from None
        if len(set(indices)) < len(indices):
            twice = next(index for index, times in Counter(indices).items() if times > 1)
            raise DataError(
                "SPARSE_INVALID", f"index {twice} occurs twice", where=here,
                expected="each index once in a record",
            )
        self.counts.append(len(indices))
        try:
            self.indices.extend(indices)
        except OverflowError:
            self.limits.require(1, 1 << 63, here)
            raise
        self.values.extend(values)

    def place(self, pair: int) -> str | None:
        """The record that the pair of that number, of all, is in."""
        record = 0
        while pair >= self.counts[record]:
            pair -= self.counts[record]
            record += 1
        return place(self.where, record + 1)


def _read(body: bytes, where: str | None, limits: Limits) -> _Records:
    records = _Records(where, limits)
    body = body.replace(b"\r\n", b"\n").rstrip()
    commented = b"#" in body
    for line in body.split(b"\n") if body else ():
        if commented:
            line, mark, _ = line.partition(b"#")
            if mark and not line.strip():
                continue
        records.add(line.split())
    return records


def _pairs(tokens: Sequence[bytes]) -> tuple[list[int], list[float]]:
    """Raises ValueError where a token is no pair."""
    if not tokens:
        return [], []
    indices, values = zip(*[token.split(b":") for token in tokens], strict=True)
    if not b"".join(indices).isdigit():
        raise ValueError
    return list(map(int, indices)), exact(values)


def _is_pair(token: bytes) -> bool:
    try:
        _pairs([token])
    except ValueError:
        return False
    return True


def _no_pair(tokens: Sequence[bytes], where: str) -> DataError:
    """Names the first token that is no pair."""
    position, token = next(
        (position, token) for position, token in enumerate(tokens, 1) if not _is_pair(token)
    )
    shown = repr(token[:60].decode("utf-8", "replace"))
    if token.startswith(b"qid:"):
        return DataError(
            "QID_UNSUPPORTED", f"{shown} groups records for ranking, which is not supported",
            where=where, expected=_PAIR,
            remedy="leave qid out; an algorithm that ranks takes the group as a column",
        )
    return DataError(
        "RECORD_NOT_A_NUMBER", f"{shown} is not a pair of numbers",
        where=f"{where}, pair {position}", expected=_PAIR,
    )


def _label(token: bytes, where: str) -> float:
    try:
        return exact([token])[0]
    except ValueError:
        raise DataError(
            "RECORD_NOT_A_NUMBER",
            f"the label {token[:60].decode('utf-8', 'replace')!r} is not a number",
            where=where, expected=f"a number, then pairs of {_PAIR}",
        ) from None


def _labels(records: _Records, required: bool) -> NDArray[np.float32] | None:
    missing = records.labels.count(None)
    if not missing:
        return to_float32(records.labels)
    if missing == len(records.labels) and not required:
        return None
    raise DataError(
        "LABEL_MISSING", "the line begins with a pair, not with a label",
        where=place(records.where, records.labels.index(None) + 1),
        expected="a label in every record" if required else "a label in every record or in none",
        remedy="declare records without a label with label_size=0 in their content type",
    )


def _dense(records: _Records, first: int, declared: int | None) -> NDArray[np.float32]:
    import numpy as np

    indices = np.frombuffer(records.indices, np.int64) if records.indices else np.zeros(0, np.int64)
    if first and not indices.all():
        raise DataError(
            "SPARSE_INVALID", "has index 0, and first_index=1 is declared",
            where=records.place(int((indices == 0).argmax())), expected="indices from 1",
            remedy="where indices count from 0, leave first_index=1 out of the content type",
        )
    greatest = int(indices.max(initial=first - 1))
    if declared is not None and greatest >= declared + first:
        raise DataError(
            "RECORD_WIDTH", f"has index {greatest}, and features={declared} is declared",
            where=records.place(int(indices.argmax())),
            expected=f"indices from {first} to {declared - 1 + first}",
        )
    width = greatest + 1 - first if declared is None else declared
    if width < 1:
        raise DataError(
            "RECORD_WIDTH", f"has {columns(0)}: no record has a pair", where=records.where,
            expected=f"at least one {_PAIR}, or features=N in the content type",
        )
    count = len(records.counts)
    widest = declared is None and indices.size
    records.limits.require(
        count, width, records.place(int(indices.argmax())) if widest else records.where
    )
    matrix = np.zeros((count, width), dtype=np.float32)
    rows = np.repeat(np.arange(count), records.counts)
    matrix[rows, indices - first] = to_float32(records.values)
    return matrix
