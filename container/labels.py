"""Labels of the images of a channel: from a list, or else from the folders that they lie in.

The list is a `.lst` file (index, labels, path, tabs between), in the channel itself or in a channel
of its own called `<name>_lst`, as SageMaker's image classification has it. The classes of folders
are those of all channels of one ContentType, sorted, so that a label means the same in each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from byoa.container.errors import DataError
from byoa.container.files import GZIP_SUFFIX, data_files
from byoa.container.formats import registry
from byoa.container.formats.image import FORMAT as IMAGE
from byoa.container.formats.image_labels import class_labels, classes_of, list_labels, read_list

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["LIST_SUFFIX", "folder_labels", "labels_width", "listed_labels"]

LIST_SUFFIX = ".lst"


def listed_labels(
    lists: Sequence[tuple[str, Path]], paths: Sequence[str], channel: str
) -> NDArray[np.float32]:
    """By the one list that there is, with its name. Raises DataError."""
    if len(lists) > 1:
        raise DataError(
            "LIST_AMBIGUOUS", "there are several lists of labels:"
            f" {', '.join(name for name, _ in lists[:5])}", where=channel,
            expected=f"one {LIST_SUFFIX} file, in the channel or in channel {channel}_lst",
            remedy="join them to one, or leave the others out of the channel",
        )
    name, path = lists[0]
    return list_labels(read_list(path.read_bytes(), name), paths, name)


def folder_labels(
    paths: Sequence[str], channels: Sequence[tuple[str, Path]]
) -> NDArray[np.float32] | None:
    """By the first folder of each path; None where there are no folders, or but one in all.

    `channels` are those whose folders are the classes, names and directories. Raises DataError.
    """
    if not any("/" in path for path in paths):
        return None
    others = [path for name, directory in channels for path in _images(name, directory)]
    classes = classes_of([*paths, *(path for path in others if "/" in path)])
    return class_labels(paths, classes) if len(classes) > 1 else None


def labels_width(labels: NDArray[np.float32] | None) -> int:
    """How many labels an image has."""
    return 0 if labels is None else math.prod(labels.shape[1:])


def _images(channel: str, directory: Path) -> list[str]:
    """The files that are, or may be, images."""
    found = []
    for path in data_files(directory, channel):
        name = path.name.lower().removesuffix(GZIP_SUFFIX)
        suffix = Path(name).suffix
        if suffix != LIST_SUFFIX and registry.by_suffix(suffix) in (IMAGE, None):
            found.append(path.relative_to(directory).as_posix())
    return found
