"""An augmented manifest: one JSON object a line, of which a channel delivers some attributes.

The whole file is looked through before the job starts; of its lines only their places are kept.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

from byoa.container.contract import dump
from byoa.container.errors import ByoaError
from byoa.local.control.channel_sources import DownloadError, Source
from byoa.local.storage.buckets import Buckets, ObjectMissing, parse_s3_uri

REFERENCE = "-ref"  # attributes that end so name an object, whose bytes are delivered (TRAIN-113)
SHOWN_CHARACTERS = 80  # of a line that is wrong


class AugmentedManifest:
    """The lines of an object that is held open, so that they stay what they were when the job
    began; `close` it. Raises DownloadError, naming line and attribute (TRAIN-114)."""

    def __init__(self, buckets: Buckets, uri: str, attributes: Sequence[str]) -> None:
        self._uri = uri
        self._attributes = tuple(attributes)
        bucket, key = parse_s3_uri(uri)
        found = buckets.open(bucket, key)
        if found is None:
            raise ObjectMissing(bucket, key)
        self._file = os.fdopen(found[1], "rb")
        self._starts, self._lengths = array("Q"), array("Q")
        self._numbers = array("Q")  # of the lines; empty ones are none
        try:
            self._look_through()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._starts)

    def parts(self, index: int) -> Iterator[Source | bytes]:
        """What one line delivers, in the order of the attributes."""
        line = os.pread(self._file.fileno(), self._lengths[index], self._starts[index])
        yield from self._parts(line, self._numbers[index])

    def close(self) -> None:
        self._file.close()

    def _look_through(self) -> None:
        start = 0
        for number, line in enumerate(self._file, start=1):
            if line.strip():
                self._parts(line, number)
                self._starts.append(start)
                self._lengths.append(len(line))
                self._numbers.append(number)
            start += len(line)
        if not self._starts:
            raise DownloadError(f"the augmented manifest {self._uri} has no lines")

    def _parts(self, line: bytes, number: int) -> list[Source | bytes]:
        where = f"line {number} of the augmented manifest {self._uri}"
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            shown = line.strip()[:SHOWN_CHARACTERS].decode("utf-8", "replace")
            raise DownloadError(f"{where} is no JSON object: {shown}")
        return [self._part(entry, name, where) for name in self._attributes]

    def _part(self, entry: dict[str, Any], name: str, where: str) -> Source | bytes:
        if name not in entry:
            raise DownloadError(
                f"{where} has no attribute {name!r}, which AttributeNames asks of every line; it"
                f" has {', '.join(map(repr, entry)) or 'none'}"
            )
        value = entry[name]
        if not name.endswith(REFERENCE):
            text = value if isinstance(value, str) else dump(value)
            return text.encode("utf-8", "surrogatepass")  # JSON can say half a character
        try:
            bucket, key = parse_s3_uri(value if isinstance(value, str) else dump(value))
        except ByoaError as error:
            raise DownloadError(f"{where}, attribute {name!r}: {error}") from None
        return Source(bucket, key, key.rpartition("/")[2])
