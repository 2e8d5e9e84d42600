"""What a predict or a handler yields, and how it is written: a type for the stream, bytes for each
piece.

    application/jsonlines      a JSON value a line
    text/event-stream          an event each: text as it is, all else as JSON
    application/json           one array
    text/plain                 text as it is
    application/octet-stream   bytes, or text, as they are

Where the request leaves the type open, the first piece decides: bytes, text, or JSON lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from byoa.container.errors import AlgorithmError
from byoa.container.formats.json_text import dumps
from byoa.container.formats.predictions import plain
from byoa.container.media_types import NotAcceptable, parse_accept

JSON_LINES = "application/jsonlines"
EVENTS = "text/event-stream"
JSON = "application/json"
TEXT = "text/plain"
BYTES = "application/octet-stream"
TYPES = (JSON_LINES, TEXT, EVENTS, JSON, BYTES)  # of those that a range covers, the first
_CHARSET = {TEXT: "; charset=utf-8", EVENTS: "; charset=utf-8"}
_LINE_END = re.compile(r"\r\n|\r|\n")
_END = object()


class Told(NamedTuple):
    """What the author has said of the answer besides its body."""

    status: int = 200
    content_type: str | None = None
    headers: tuple[tuple[str, str], ...] = ()


class Pieces(NamedTuple):
    """What yields. `content_type`: how the pieces are to be written, None for what the first one
    says; `raw`: they are written as they are, under whatever type that is. `told` is asked when the
    first piece is there: a generator's own words come no sooner."""

    pieces: Iterable[Any]
    content_type: str | None
    raw: bool = False
    told: Callable[[], Told] = Told


class Opened(NamedTuple):
    chunks: Iterator[bytes]
    content_type: str
    told: Told


def negotiate(accept: str | None) -> str | None:
    """The stream's type by the Accept header, None where that leaves it open. Raises
    NotAcceptable."""
    ranges = parse_accept(accept)
    best: tuple[tuple[float, int, int], str] | None = None
    for order, range_ in enumerate(ranges):
        if range_.q == 0:
            continue
        if range_.specificity == 0:
            found = ""
        else:
            found = next((each for each in TYPES if range_.covers(each)), None) or "-"
        rank = (range_.q, range_.specificity, -order)
        if found != "-" and (best is None or rank > best[0]):
            best = (rank, found)
    if best is None:
        raise NotAcceptable(
            "NOT_ACCEPTABLE", f"a stream cannot be given as Accept {accept!r}",
            expected=f"one of {', '.join(TYPES)}, or */*",
        )
    return best[1] or None


def opened(given: Pieces) -> Opened:
    """The bytes and their type; reads the first piece, and raises what that raises."""
    pieces = iter(given.pieces)
    first = next(pieces, _END)
    told = given.told()
    if given.raw:
        media = told.content_type or given.content_type or BYTES
        return Opened(_raw(first, pieces), media, told)
    media = given.content_type or (told.content_type if told.content_type in TYPES else None) or (
        BYTES if _is_bytes(first) else TEXT if isinstance(first, str) else JSON_LINES
    )
    written = told.content_type or media + _CHARSET.get(media, "")
    return Opened(_written(first, pieces, media), written, told)


def _raw(first: Any, pieces: Iterator[Any]) -> Iterator[bytes]:
    for piece in _all(first, pieces):
        yield _as_bytes(piece, "what a handler yields")


def _written(first: Any, pieces: Iterator[Any], media: str) -> Iterator[bytes]:
    opening, between = (b"[", b",") if media == JSON else (b"", b"")
    before = opening
    for piece in _all(first, pieces):
        yield before + _write(piece, media)
        before = between
    if media == JSON:
        yield b"[]" if before == opening else b"]"


def _all(first: Any, pieces: Iterator[Any]) -> Iterator[Any]:
    try:
        if first is not _END:
            yield first
            yield from pieces
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()


def _write(piece: Any, media: str) -> bytes:
    if media in (TEXT, BYTES):
        return _as_bytes(piece, media)
    if media == EVENTS and isinstance(piece, str):
        # An event's text may have lines, each of which is marked.
        return "".join(f"data: {line}\n" for line in _LINE_END.split(piece)).encode() + b"\n"
    if _is_bytes(piece):
        raise AlgorithmError(
            "PREDICTION_NOT_ENCODABLE", f"predict yielded bytes, which {media} cannot hold",
            expected="numbers, text, lists or dicts",
            remedy=f"ask for Accept: {BYTES}, or yield text",
        )
    document = dumps(plain(piece))
    if media == JSON_LINES:
        return document + b"\n"
    return b"data: " + document + b"\n\n" if media == EVENTS else document


def _as_bytes(piece: Any, what: str) -> bytes:
    if isinstance(piece, str):
        return piece.encode()
    if _is_bytes(piece):
        return bytes(piece)
    raise AlgorithmError(
        "PREDICTION_NOT_ENCODABLE", f"a piece of {what} is {type(piece).__name__}",
        expected="text or bytes",
        remedy=f"yield text or bytes, or ask for Accept: {JSON_LINES}",
    )


def _is_bytes(piece: Any) -> bool:
    return isinstance(piece, (bytes, bytearray, memoryview))
