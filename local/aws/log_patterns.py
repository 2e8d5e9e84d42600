"""CloudWatch Logs' filter patterns for plain text: terms that occur in a line (WIRE-41).

A pattern that would need more (JSON, columns, regular expressions) is refused, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from byoa.local.errors import AwsError

SUPPORTED = (
    "supported here are terms of letters, digits and underscores, which must all occur, phrases "
    'in "double quotes", -term for what must not occur, and ?term ?other for any of them'
)
_TERM = re.compile(r'(?P<sign>[-?]?)(?:"(?P<phrase>(?:[^"\\]|\\.)*)"|(?P<word>[^\s"]+))(?=\s|$)')
_WORD = re.compile(r"\w+")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)

__all__ = ["SUPPORTED", "compile_pattern"]


def compile_pattern(pattern: str) -> Callable[[str], bool]:
    """Whether a message matches `pattern`; an empty one matches all, as in the service.

    Matching minds the case. Raises AwsError InvalidParameterException for other patterns.
    """
    required: list[str] = []
    excluded: list[str] = []
    any_of: list[str] = []
    for sign, term in _terms(pattern.strip()):
        (excluded if sign == "-" else any_of if sign == "?" else required).append(term)
    if any_of and (required or excluded):
        # The service would pass over the question marks.
        raise _invalid(pattern, "?terms do not combine with others")

    def matches(message: str) -> bool:
        return (
            all(term in message for term in required)
            and not any(term in message for term in excluded)
            and (not any_of or any(term in message for term in any_of))
        )

    return matches


def _terms(pattern: str) -> list[tuple[str, str]]:
    """The pattern's pairs of sign ("", "-" or "?") and text."""
    if pattern[:1] in ("{", "["):
        kind = "JSON" if pattern[0] == "{" else "column"
        raise _invalid(pattern, f"{kind} patterns are not supported")
    terms = []
    position = 0
    while position < len(pattern):
        match = _TERM.match(pattern, position)
        if match is None:
            raise _invalid(pattern, "a quoted phrase does not end, or is not followed by a space")
        if match["phrase"] is not None:
            text = _ESCAPED.sub(r"\1", match["phrase"])
            if not text:
                raise _invalid(pattern, "a phrase is empty")
        else:
            text = match["word"]
            if text.startswith("%"):
                raise _invalid(pattern, "regular expressions are not supported")
            if not _WORD.fullmatch(text):
                raise _invalid(
                    pattern, f"Invalid character(s) in term '{text}': put it in double quotes"
                )
        terms.append((match["sign"], text))
        position = match.end()
        while position < len(pattern) and pattern[position].isspace():
            position += 1
    return terms


def _invalid(pattern: str, why: str) -> AwsError:
    return AwsError(
        "InvalidParameterException", f"Filter pattern {pattern[:200]!r}: {why}; {SUPPORTED}"
    )
