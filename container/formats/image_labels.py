"""Labels of images: from a .lst file, or from the folders that the images lie in.

A .lst file, as im2rec writes it, has a line an image, with tabs between: index, one label or
several, and the path below the channel's directory. With folders the class is the first folder of
the path, and its label the folder's place among all of them in the order of their names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from byoa.container.errors import DataError
from byoa.container.formats.base import to_float32
from byoa.container.formats.number_text import exact

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["class_labels", "classes_of", "list_labels", "read_list"]

_LINE = "index, label or labels, and path, with tabs between"


def read_list(data: bytes, where: str) -> dict[str, tuple[float, ...]]:
    """The labels of each path in a .lst file; all have as many. Raises DataError."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            "BODY_MALFORMED", f"the text is not UTF-8: {error}", where=where, expected=_LINE
        ) from None
    found: dict[str, tuple[float, ...]] = {}
    width = 0
    for number, line in enumerate(text.replace("\r\n", "\n").rstrip("\n").split("\n"), 1):
        here = f"{where} line {number}"
        path, labels = _line(line, here)
        width = width or len(labels)
        if len(labels) != width:
            raise DataError(
                "RECORD_WIDTH", f"has {len(labels)} labels, expected {width}", where=here,
                expected="as many labels as line 1 has",
            )
        if path in found:
            raise DataError(
                "LABEL_TWICE", f"{path!r} is listed twice", where=here,
                expected="each image once",
            )
        found[path] = labels
    return found


def list_labels(
    listed: Mapping[str, tuple[float, ...]], paths: Iterable[str], where: str
) -> NDArray[np.float32]:
    """The labels of `paths`, relative with `/`: float32 (n,), or (n, labels) with several.

    `where` names the list. Raises DataError LABEL_MISSING for an image that is not listed.
    """
    rows = []
    for path in paths:
        if path not in listed:
            raise DataError(
                "LABEL_MISSING", f"the list {where} has no label for it", where=path,
                expected="a line for each image, its path below the channel's directory",
            )
        rows.append(listed[path])
    matrix = to_float32(rows)
    return matrix[:, 0].copy() if matrix.shape[1:] == (1,) else matrix


def classes_of(paths: Iterable[str]) -> tuple[str, ...]:
    """The names of the first folders of `paths`, sorted: the class of label 0, of label 1 …

    Raises DataError LABEL_MISSING for an image that lies in no folder.
    """
    return tuple(sorted({_folder(path) for path in paths}))


def class_labels(paths: Iterable[str], classes: Sequence[str]) -> NDArray[np.float32]:
    """The label of each path by its folder: its place in `classes`, of the training channel say.

    Raises DataError LABEL_UNKNOWN for a folder that is none of them.
    """
    places = {name: place for place, name in enumerate(classes)}
    labels = []
    for path in paths:
        folder = _folder(path)
        if folder not in places:
            raise DataError(
                "LABEL_UNKNOWN", f"its folder {folder!r} is no class", where=path,
                expected=f"one of the folders {', '.join(map(repr, classes[:20]))}",
            )
        labels.append(float(places[folder]))
    return to_float32(labels)


def _folder(path: str) -> str:
    folder, slash, _ = path.partition("/")
    if not slash:
        raise DataError(
            "LABEL_MISSING", "the image lies in no folder, which would name its class", where=path,
            expected="images as class/name.jpg, or a .lst file of labels",
        )
    return folder


def _line(line: str, where: str) -> tuple[str, tuple[float, ...]]:
    cells = line.split("\t")
    if len(cells) < 3:
        raise DataError(
            "RECORD_WIDTH", f"{line[:60]!r} has {len(cells)} parts", where=where,
            expected=f"{_LINE}: 3 parts or more",
        )
    index, *labels, path = cells
    if not (index.isascii() and index.isdigit()):
        raise DataError(
            "RECORD_NOT_A_NUMBER", f"the index {index[:60]!r} is no whole number", where=where,
            expected=_LINE,
        )
    try:
        numbers = tuple(exact(labels))
    except ValueError:
        raise DataError(
            "RECORD_NOT_A_NUMBER",
            f"the label {', '.join(repr(label[:60]) for label in labels[:5])} is not a number",
            where=where, expected=_LINE,
        ) from None
    if not path or path.startswith("/") or ".." in path.split("/"):
        raise DataError(
            "PATH_OUTSIDE", f"{path[:200]!r} is no path below the channel's directory", where=where,
            expected="a relative path such as cats/1.jpg",
        )
    return path.removeprefix("./"), numbers
