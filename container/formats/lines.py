"""Where a piece of a text stream may be cut: behind its last whole line."""

from __future__ import annotations

import codecs
import re

from byoa.container.formats.base import charset_of, charset_unknown
from byoa.container.media_types import MediaType

__all__ = ["whole_lines"]

# Charsets whose bytes for line ends and quotes stand for nothing else, whatever is around them.
_LIKE_ASCII = re.compile(r"ascii|utf-8|iso8859-\d+|cp125\d|koi8-[rtu]|mac-roman")


def whole_lines(
    data: bytes | memoryview, media: MediaType | None, *, quotes: bool = False
) -> int | None:
    """The bytes up to the last line end, LF or CRLF and, with `quotes`, CR; 0 without one.

    With `quotes` a line end within a quoted cell is none. None where the charset's line ends
    cannot be told from other bytes. Raises UnsupportedMediaType for an unknown charset.
    """
    charset = charset_of(media)
    try:
        if not _LIKE_ASCII.fullmatch(codecs.lookup(charset).name):
            return None
    except LookupError:
        raise charset_unknown(charset, media) from None
    text = data if isinstance(data, bytes) else bytes(data)
    if not quotes:
        return text.rfind(b"\n") + 1
    end = _last_end(text, len(text))
    if b'"' not in text:
        return end
    # A line end with an odd number of quotes before it lies in a cell, as do all others back to
    # the quote that opens the cell.
    before = text.count(b'"', 0, end)
    while before % 2:
        opening = text.rfind(b'"', 0, end)
        earlier = _last_end(text, opening)
        before -= text.count(b'"', earlier, end)
        end = earlier
    return end


def _last_end(text: bytes, stop: int) -> int:
    """Behind the last line end of `text[:stop]`. A CR at the very end may be half of a CRLF."""
    feed = text.rfind(b"\n", 0, stop) + 1
    return max(feed, text.rfind(b"\r", feed, min(stop, len(text) - 1)) + 1)
