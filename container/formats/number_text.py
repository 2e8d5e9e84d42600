"""Numbers written as text: by a parser in C where that is exact, else by Python's own `float`.

A fast route gives what the exact one gives, to the last bit, or None: a block of text that it
refuses, for NaN, `+1`, `.5` or a fault, takes the exact route. Numbers are read as float64 and
rounded to float32, whichever way they come.
"""

from __future__ import annotations

import codecs
import re
import threading
from collections.abc import Sequence
from contextvars import Context
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from byoa.container.formats.base import packed, to_float32
from byoa.container.formats.json_text import quick

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["document", "exact", "row", "table"]

# Stands behind each line, so that ragged lines show: a JSON number that no data holds by chance,
# and if some does, there is one too many.
_MARK = -8e18
_MARKED_END = b",-8e18,"
# To JSON -0 is the integer 0; to `float` it is negative. Not the exponent of 1e-05.
_NEGATIVE_ZERO = re.compile(rb"-0(?![.eE])(?<![eE]-0)")
# As numbers, which `in` finds in bytes in a fifth of the time that it takes for bytes.
_LF, _CR, _MINUS, _BRACKET = b"\n\r-["
# A parser keeps some ten times the longest text that it has read; it is made for a longer one.
_OWN_BYTES = 1 << 18


def row(text: bytes) -> NDArray[np.float32] | None:
    """One line of numbers, most of what an endpoint is sent, as an array (1, columns).

    None where it is no single line, or is one for the exact route, or simdjson is not installed.
    """
    if accelerator() is None or _LF in text or _CR in text or _BRACKET in text:
        return None
    import numpy as np

    own = _own()
    try:
        numbers = np.frombuffer(own.parser.parse(b"[%b]" % text).as_buffer(of_type="d"))
    except (ValueError, TypeError, RuntimeError):  # as in _by_buffer
        return None
    if not numbers.size:
        return None
    found = _rounded(numbers, own.quiet)
    return None if _MINUS in text and _zero_unsigned(found, text) else found[np.newaxis]


def table(text: bytes) -> NDArray[np.float32] | None:
    """Lines of numbers with commas between, without a last line end; None for the exact route."""
    if _BRACKET in text:  # the one thing that is JSON and no line of cells to the parser below
        return None
    if accelerator() is None:
        found = _by_objects(text)
    elif _LF in text:
        found = _by_buffer(text)
    else:
        return row(text)
    # A zero is one by its bits, too, and numpy is quicker with integers where there are many.
    if found is None or not found.size or _MINUS in text and _zero_unsigned(found.view("i4"), text):
        return None
    return found


def document(text: bytes) -> NDArray[np.float32] | None:
    """A JSON document of numbers alone, `{"instances": [[1, 2], [3, 4]]}`, `[[1, 2], [3, 4]]` or
    `[1, 2]`, as an array (records, columns); None for the exact route.
    """
    if accelerator() is None or text.startswith(codecs.BOM_UTF8):  # a second one is a fault
        return None
    own = _own()
    if len(text) > _OWN_BYTES:
        own = own._replace(parser=accelerator()())
    try:
        return _rectangle(text, own)
    # As in _by_buffer, and what is no object or array has no `len`, no member, no `as_buffer`.
    except (ValueError, TypeError, RuntimeError, LookupError, AttributeError):
        return None


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


class _Own(NamedTuple):
    """What a thread has for itself, because to make it would take longer than to use it."""

    parser: Any
    """simdjson's, with its memory."""
    quiet: Context | None
    """In it numpy says nothing about what float32 cannot hold. None with numpy 1, whose `errstate`
    is not the context's but the thread's."""


_THREAD = threading.local()


def _own() -> _Own:
    try:
        found: _Own = _THREAD.own
    except AttributeError:
        import numpy as np

        quiet = None if np.__version__.startswith("1.") else Context()
        if quiet is not None:
            quiet.run(np.errstate(over="ignore").__enter__)
        found = _THREAD.own = _Own(accelerator()(), quiet)
    return found


def _rounded(numbers: NDArray[np.float64], quiet: Context | None) -> NDArray[np.float32]:
    """As `to_float32`, in a third of the time where the numbers are few."""
    import numpy as np

    return to_float32(numbers) if quiet is None else quiet.run(numbers.astype, np.float32, "C")


def _zero_unsigned(found: NDArray[Any], text: bytes) -> bool:
    """Whether a zero in it has, or may have, lost its sign."""
    import numpy as np

    if np.count_nonzero(found) == found.size:
        return False
    return _NEGATIVE_ZERO.search(text) is not None


def _by_buffer(text: bytes) -> NDArray[np.float32] | None:
    """Several lines."""
    import numpy as np

    marked = text.replace(b"\n", _MARKED_END)
    lines = (len(marked) - len(text)) // (len(_MARKED_END) - 1) + 1  # cheaper than to count them
    own = _own()
    try:
        buffer = own.parser.parse(b"[%b,-8e18]" % marked).as_buffer(of_type="d")
    except (ValueError, TypeError, RuntimeError):  # no JSON, another type, nested too deeply
        return None
    numbers = np.frombuffer(buffer)
    if len(numbers) % lines:
        return None
    rows = numbers.reshape(lines, -1)
    marks = rows == _MARK
    if np.count_nonzero(marks) != lines or not marks[:, -1].all():
        return None
    return _rounded(rows[:, :-1], own.quiet)


def _rectangle(text: bytes, own: _Own) -> NDArray[np.float32] | None:
    import numpy as np

    found = own.parser.parse(text)
    rows = found
    if hasattr(found, "keys"):
        rows = found["instances"]
        if len(found) > 1:
            return None
    arrays = text.count(_BRACKET) - 1  # inside `rows`; no string, which might hold one, is a number
    count = len(rows)
    numbers = np.frombuffer(rows.as_buffer(of_type="d"))
    if not numbers.size:
        return None
    if arrays == 0 and rows is found:
        count = 1
    elif arrays != count:
        return None
    elif count > 1:
        width = len(numbers) // count
        if any(len(each) != width for each in rows):
            return None
    return _rounded(numbers, own.quiet).reshape(count, -1)


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
