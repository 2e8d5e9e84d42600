"""Numbers written as text: by a parser in C where that is exact, else by Python's own `float`.

A fast route gives what the exact one gives, to the last bit, or None: a block of text that it
refuses, for NaN, `+1`, `.5` or a fault, takes the exact route. Numbers are read as float64 and
rounded to float32, whichever way they come.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from byoa.container.formats.base import packed, to_float32
from byoa.container.formats.json_text import quick

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["exact", "table"]

# Stands behind each line, so that ragged lines show: a JSON number that no data holds by chance,
# and if some does, there is one too many.
_MARK = -8e18
_MARKED_END = b",-8e18,"
# To JSON -0 is the integer 0; to `float` it is negative. Not the exponent of 1e-05.
_NEGATIVE_ZERO = re.compile(rb"-0(?![.eE])(?<![eE]-0)")


def table(text: bytes) -> NDArray[np.float32] | None:
    """Lines of numbers with commas between, without a last line end; None for the exact route."""
    if b"[" in text:  # the one thing that is JSON and no line of cells to the parser below
        return None
    parser = accelerator()
    found = _by_objects(text) if parser is None else _by_buffer(_own(parser), text)
    if found is None or not found.size:
        return None
    import numpy as np

    if np.count_nonzero(found) < found.size and _NEGATIVE_ZERO.search(text):
        return None
    return found


def exact(cells: Sequence[bytes | str]) -> list[float]:
    """Each cell by `float`, white space around it aside. Raises ValueError."""
    numbers = list(map(float, cells))
    # Python alone reads 1_000, and, in a str, another script's digits.
    if isinstance(cells[0], bytes):
        if b"_" in b"".join(cells):  # type: ignore[arg-type]
            raise ValueError
    elif "_" in (text := "".join(cells)) or not text.isascii():  # type: ignore[arg-type]
        raise ValueError
    return numbers


@lru_cache(maxsize=1)
def accelerator() -> Any:
    """simdjson's parser class, or None; it fills an array without an object for each number."""
    try:
        from simdjson import Parser
    except ImportError:
        return None
    return Parser


_THREAD = threading.local()


def _own(parser: Any) -> Any:
    """This thread's parser: a new one's memory would cost more than the parsing."""
    try:
        return _THREAD.parser
    except AttributeError:
        _THREAD.parser = parser()
        return _THREAD.parser


def _by_buffer(parser: Any, text: bytes) -> NDArray[np.float32] | None:
    import numpy as np

    marked = text.replace(b"\n", _MARKED_END)
    lines = (len(marked) - len(text)) // (len(_MARKED_END) - 1) + 1  # cheaper than to count them
    try:
        document = b"[%b,-8e18]" % marked if lines > 1 else b"[%b]" % text
        buffer = parser.parse(document).as_buffer(of_type="d")
    except (ValueError, TypeError, RuntimeError):  # no JSON, another type, nested too deeply
        return None
    numbers = np.frombuffer(buffer)
    if len(numbers) % lines:
        return None
    rows = numbers.reshape(lines, -1)
    if lines > 1:
        marks = rows == _MARK
        if np.count_nonzero(marks) != lines or not marks[:, -1].all():
            return None
        rows = rows[:, :-1]
    return to_float32(rows)


def _by_objects(text: bytes) -> NDArray[np.float32] | None:
    # Strings, objects, true, false and null are JSON, but no cells.
    if b"{" in text or b"u" in text or b"l" in text or b'"' in text:
        return None
    ends = text.count(b"\n")
    try:
        # A null marks each line's end: one flat list is made, not many.
        values = quick(b"[%b]" % (text.replace(b"\n", b",null,") if ends else text))
        if not ends:
            return packed(values).reshape(1, -1) if values else None
        width = values.index(None)
        if values[width::width + 1] != [None] * ends or len(values) != (ends + 1) * (width + 1) - 1:
            return None
        del values[width::width + 1]
        return packed(values).reshape(ends + 1, width) if width else None
    except (ValueError, OverflowError):  # no JSON, or a number beyond the floats
        return None
