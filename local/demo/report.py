"""What the tour shows of an evaluation: a confusion matrix in the terminal and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from byoa.local.demo.digits import CLASSES, SIDE, Split


def confusion(truth: Any, answers: Any) -> Any:
    """(10, 10) counts; rows are the true digit, columns the answer."""
    import numpy as np

    matrix = np.zeros((len(CLASSES), len(CLASSES)), dtype=int)
    np.add.at(matrix, (truth, answers), 1)
    return matrix


def as_text(matrix: Any) -> str:
    """The matrix for a terminal; zero is a dot, so that mistakes stand out."""
    header = "true \\ read " + "".join(f"{each:>4}" for each in CLASSES)
    rows = [
        f"{digit:>11} " + "".join(f"{count or '·':>4}" for count in row)
        for digit, row in zip(CLASSES, matrix.tolist(), strict=True)
    ]
    return "\n".join([header, *rows])


def draw(path: Path, matrix: Any, test: Split, answers: Any, accuracy: float) -> None:
    """A PNG with the confusion matrix and up to nine misread digits."""
    import matplotlib

    matplotlib.use("Agg")
    import numpy as np
    from matplotlib import pyplot

    wrong = np.flatnonzero(test.labels != answers)[:9]
    figure = pyplot.figure(figsize=(11, 5.5), layout="constrained")
    halves: Any = figure.subfigures(1, 2, width_ratios=[1.1, 1])
    left, right = halves
    axes = left.subplots()
    axes.imshow(np.log1p(matrix), cmap="Blues")
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            colour = "white" if row == column else "firebrick"
            axes.text(column, row, str(count), ha="center", va="center", color=colour)
    axes.set(xticks=CLASSES, yticks=CLASSES, xlabel="read as", ylabel="true digit")
    axes.set_title(f"{len(test)} test digits, accuracy {accuracy:.3f}")
    misread = int((test.labels != answers).sum())
    right.suptitle(f"{misread} misread" if misread else "none misread")
    grid = right.subplots(max(1, -(-len(wrong) // 3)), 3, squeeze=False)
    for cell in grid.flat:
        cell.axis("off")
    for cell, index in zip(grid.flat, wrong, strict=False):
        cell.imshow(test.pixels[index].reshape(SIDE, SIDE), cmap="gray_r")
        cell.set_title(f"{test.labels[index]} read as {answers[index]}", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
