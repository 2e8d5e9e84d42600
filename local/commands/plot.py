"""A line through points, drawn with characters: braille dots, or asterisks where the terminal has
no Unicode."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

LABEL_CHARACTERS = 9  # of the y axis
BRAILLE = 0x2800
# The bit of each of a braille character's dots, by row and column.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


def plot(
    points: Sequence[tuple[float, float]],
    *,
    width: int,
    height: int,
    x_labels: tuple[str, str],
    unicode: bool = True,
) -> list[str]:
    """The lines of a plot of so many characters, its axes included; `x_labels` are of both ends.

    `points` are in order of x; a line joins those that follow each other.
    """
    columns, rows = max(4, width - LABEL_CHARACTERS - 2), max(2, height - 1)
    across, down = (2, 4) if unicode else (1, 1)  # dots a character
    low, high = _range([y for _, y in points])
    left, right = points[0][0], points[-1][0]
    dots: set[tuple[int, int]] = set()
    before: tuple[int, int] | None = None
    for x, y in points:
        here = (
            round((x - left) / ((right - left) or 1) * (columns * across - 1)),
            round((high - y) / (high - low) * (rows * down - 1)),
        )
        dots.update(_between(before or here, here))
        before = here
    corner, edge, axis = ("└", "│", "─") if unicode else ("+", "|", "-")
    lines = []
    for row in range(rows):
        label = number(high) if row == 0 else number(low) if row == rows - 1 else ""
        cells = "".join(
            _braille(dots, row, column) if unicode
            else "*" if (column, row) in dots else " "
            for column in range(columns)
        )
        lines.append(f"{label:>{LABEL_CHARACTERS}} {edge}{cells}".rstrip())
    foot = f"{x_labels[0]} {x_labels[1]:>{columns - len(x_labels[0]) - 1}}".replace(
        "  ", axis * 2
    )
    return [*lines, f"{'':>{LABEL_CHARACTERS}} {corner}{foot}"]


def number(value: float) -> str:
    """At most nine characters: five digits that count, or three and an exponent."""
    return f"{value:.5g}" if value == 0 or 0.01 <= abs(value) < 99999.5 else f"{value:.2e}"


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low == high:  # a flat line goes through the middle
        space = abs(low) / 2 or 1.0
        return low - space, high + space
    return low, high


def _between(start: tuple[int, int], end: tuple[int, int]) -> Iterator[tuple[int, int]]:
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    for step in range(steps + 1):
        share = step / steps
        yield (
            math.floor(start[0] + (end[0] - start[0]) * share + 0.5),
            math.floor(start[1] + (end[1] - start[1]) * share + 0.5),
        )


def _braille(dots: set[tuple[int, int]], row: int, column: int) -> str:
    bits = sum(
        bit
        for down, pair in enumerate(_DOTS)
        for across, bit in enumerate(pair)
        if (column * 2 + across, row * 4 + down) in dots
    )
    return chr(BRAILLE + bits) if bits else " "
