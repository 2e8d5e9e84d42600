"""application/jsonlines: a JSON record a line, in the record forms of application/json.

An empty line between records is a fault: answers stay aligned with lines.
"""

from __future__ import annotations

from typing import Any

from byoa.container.errors import DataError
from byoa.container.formats.base import Batch, Format, body_empty, label_size_of, place, to_utf8
from byoa.container.formats.json_document import answers, assemble
from byoa.container.formats.json_text import dumps, loads
from byoa.container.formats.limits import LIMITS, Limits
from byoa.container.formats.lines import whole_lines
from byoa.container.media_types import MediaType

__all__ = ["FORMAT"]


class _JsonLines(Format):
    name = "jsonlines"
    media_types = (
        "application/jsonlines",
        "application/x-jsonlines",
        "application/jsonl",
    )
    suffixes = (".jsonl", ".jsonlines")
    sample = '{"features": [1.5, 2.0]}'
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
        """One record a line: an array or an object with features."""
        body = to_utf8(data, media, where).rstrip()
        if not body:
            raise body_empty(where, self.sample)
        records: list[Any] = []
        for number, line in enumerate(body.split(b"\n"), 1):
            try:
                records.append(loads(line))
            except ValueError as error:
                raise DataError(
                    "BODY_MALFORMED",
                    f"is not JSON: {error}" if line.strip() else "the line is empty",
                    where=place(where, number), expected=f"one record a line, as {self.sample}",
                ) from None
        return assemble(records, label_size_of(media, label_size), where, limits)

    def boundary(self, data: bytes | memoryview, media: MediaType | None = None) -> int | None:
        """Behind the last line."""
        return whole_lines(data, media)

    def encode(self, predictions: Any, media: MediaType | None = None) -> bytes:
        """One JSON value a line: an object for columns, otherwise the prediction itself."""
        return b"".join(dumps(answer) + b"\n" for answer in answers(predictions))


FORMAT = _JsonLines()
