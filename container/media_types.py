"""Media types of HTTP: Content-Type and Accept headers, read by the grammar of RFC 9110.

A header that cannot be read is a coded error: UnsupportedMediaType (415) or NotAcceptable (406).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

from byoa.container.errors import DataError

__all__ = ["MediaType", "NotAcceptable", "UnsupportedMediaType", "parse_accept", "parse_media_type"]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_QUOTED = re.compile(r'"((?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[\t\x20-\x7e\x80-\xff])*)"')
_ESCAPE = re.compile(r"\\(.)")
_SPACE = re.compile(r"[ \t]*")
# RFC 9110 has at most three decimals; Java's own client sends "q=.2".
_QUALITY = re.compile(r"(?:\d?\.\d+|[01]\.?)")


class UnsupportedMediaType(DataError):
    """The request's Content-Type is missing, malformed or of no known format: HTTP 415."""


class NotAcceptable(DataError):
    """The Accept header is malformed or admits no format that byoa writes: HTTP 406."""


@dataclass(frozen=True)
class MediaType:
    """`type/subtype; name=value`, lower case but for parameter values; q only from Accept."""

    type: str
    subtype: str
    parameters: Mapping[str, str] = field(
        default_factory=lambda: MappingProxyType({}), hash=False
    )
    q: float = 1.0

    @property
    def essence(self) -> str:
        """`type/subtype` without parameters."""
        return f"{self.type}/{self.subtype}"

    @property
    def specificity(self) -> int:
        """0 for */*, 1 for type/*, 2 for type/subtype."""
        return (self.type != "*") + (self.subtype != "*")

    def covers(self, essence: str) -> bool:
        """Whether this range includes the media type `essence`."""
        return self.type == "*" or essence == self.essence or (
            self.subtype == "*" and essence.startswith(f"{self.type}/")
        )

    def __str__(self) -> str:
        """The header's text, without q; values that are no tokens are quoted."""
        return self.essence + "".join(
            f"; {name}={_quote(value)}" for name, value in self.parameters.items()
        )


class _Malformed(ValueError):
    """What the scanner expected, and at which character it found something else."""


@lru_cache(maxsize=256)
def parse_media_type(header: str) -> MediaType:
    """A Content-Type header. Raises UnsupportedMediaType, code MEDIA_TYPE_MALFORMED."""
    try:
        media, end = _scan(header, 0)
        if end != len(header):
            raise _Malformed(f"unexpected {header[end:end + 12]!r} at character {end + 1}")
        if media.specificity < 2:
            raise _Malformed("a body has one type, not a range")
    except _Malformed as error:
        raise UnsupportedMediaType(
            "MEDIA_TYPE_MALFORMED",
            f"Content-Type {header[:200]!r} cannot be read: {error}",
            expected="type/subtype with optional parameters, such as text/csv; header=present",
        ) from None
    return media


@lru_cache(maxsize=256)
def parse_accept(header: str | None) -> tuple[MediaType, ...]:
    """The ranges of an Accept header in its order; absent or empty is */* (ITK-04).

    Raises NotAcceptable, code ACCEPT_MALFORMED.
    """
    ranges: list[MediaType] = []
    text = header or ""
    position = 0
    try:
        while position < len(text):
            position = _space(text, position)
            if text[position:position + 1] == ",":
                position += 1
            elif position < len(text):
                media, position = _scan(text, position, accept=True)
                ranges.append(media)
                if text[position:position + 1] not in ("", ","):
                    found = text[position:position + 12]
                    raise _Malformed(f"unexpected {found!r} at character {position + 1}")
    except _Malformed as error:
        raise NotAcceptable(
            "ACCEPT_MALFORMED",
            f"Accept {text[:200]!r} cannot be read: {error}",
            expected="media ranges separated by commas, such as application/json, text/*;q=0.5",
        ) from None
    return tuple(ranges) or (MediaType("*", "*"),)


def _scan(text: str, position: int, *, accept: bool = False) -> tuple[MediaType, int]:
    """One media type or range from `position`, and where it ends, trailing space included."""
    kind, position = _token(text, _space(text, position), "a type")
    if accept and kind == "*" and text[position:position + 1] != "/":
        subtype = "*"  # Java's own client sends a bare "*"
    else:
        if text[position:position + 1] != "/":
            raise _Malformed(f"no '/' at character {position + 1}")
        subtype, position = _token(text, position + 1, "a subtype")
    if kind == "*" and subtype != "*":
        raise _Malformed(f"*/{subtype} is no range")
    parameters: dict[str, str] = {}
    position = _space(text, position)
    while text[position:position + 1] == ";":
        position = _space(text, position + 1)
        if text[position:position + 1] in ("", ";", ","):
            continue  # RFC 9110 admits an empty parameter
        name, position = _token(text, position, "a parameter")
        if text[position:position + 1] != "=":
            raise _Malformed(f"parameter {name!r} has no '='")
        value, position = _value(text, position + 1)
        if parameters.setdefault(name.lower(), value) != value:
            raise _Malformed(f"parameter {name!r} is given twice")
        position = _space(text, position)
    quality = _quality(parameters.pop("q", "1")) if accept else 1.0
    return (
        MediaType(kind.lower(), subtype.lower(), MappingProxyType(parameters), quality),
        position,
    )


def _quality(text: str) -> float:
    if not _QUALITY.fullmatch(text) or float(text) > 1:
        raise _Malformed(f"q={text} is not between 0 and 1")
    return float(text)


def _token(text: str, position: int, what: str) -> tuple[str, int]:
    match = _TOKEN.match(text, position)
    if match is None:
        raise _Malformed(f"{what} is missing at character {position + 1}")
    return match[0], match.end()


def _value(text: str, position: int) -> tuple[str, int]:
    match = _QUOTED.match(text, position)
    if match is not None:
        return _ESCAPE.sub(r"\1", match[1]), match.end()
    return _token(text, position, "a value")


def _space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _quote(value: str) -> str:
    if _TOKEN.fullmatch(value):
        return value
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'
