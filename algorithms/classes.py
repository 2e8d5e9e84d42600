"""The classes of a classifier: the distinct labels in its training data, and nothing else.

Labels come as float32 from every format; a class is the integer that such a label stands for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from byoa.container.errors import DataError
from byoa.container.formats.base import place

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_EXACT_LIMIT = 2**24  # float32 holds every integer up to here, then only every second one


def find_classes(
    labels: NDArray[np.float32] | None, where: str = "train"
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The classes (k,) in ascending order, and for each record the index of its class (n,).

    Raises DataError: LABELS_MISSING, LABEL_NOT_AN_INTEGER, LABELS_OF_ONE_CLASS.
    """
    classes = merge_classes([distinct_labels(labels, where)], where)
    return classes, index_classes(labels, classes, where)


def distinct_labels(
    labels: NDArray[np.float32] | None, where: str = "train"
) -> NDArray[np.int64]:
    """The distinct labels, of which there may be one: another host may have the others.

    Raises DataError: LABELS_MISSING, LABEL_NOT_AN_INTEGER.
    """
    import numpy as np

    return np.unique(_integers(labels, where))


def merge_classes(
    parts: Sequence[NDArray[np.int64]], where: str = "train"
) -> NDArray[np.int64]:
    """The classes (k,) in ascending order, of labels that several hosts have found.

    Raises DataError LABELS_OF_ONE_CLASS.
    """
    import numpy as np

    classes: NDArray[np.int64] = np.unique(np.concatenate(parts))
    if len(classes) < 2:
        raise DataError(
            "LABELS_OF_ONE_CLASS",
            f"every label is {classes[0]}",
            where=where,
            expected="at least two classes to tell apart",
            remedy="check that the label is the first column, and that the data is not sorted into"
            " files of one class of which only some arrived",
        )
    return classes


def index_classes(
    labels: NDArray[np.float32] | None, classes: NDArray[np.int64], where: str
) -> NDArray[np.int64]:
    """For each record the index of its class in `classes` (n,).

    Raises DataError: LABELS_MISSING, LABEL_NOT_AN_INTEGER, LABEL_UNKNOWN.
    """
    import numpy as np

    values = _integers(labels, where)
    indices = np.minimum(np.searchsorted(classes, values), len(classes) - 1)
    unknown = np.flatnonzero(classes[indices] != values)
    if len(unknown):
        raise DataError(
            "LABEL_UNKNOWN",
            f"label {values[unknown[0]]} does not occur in the training data",
            where=place(where, int(unknown[0]) + 1),
            expected=f"one of {_listed(classes)}",
        )
    return indices.astype(np.int64)


def _integers(labels: NDArray[np.float32] | None, where: str) -> NDArray[np.int64]:
    import numpy as np

    if labels is None:
        raise DataError(
            "LABELS_MISSING",
            "the records have no label",
            where=where,
            expected="a label for each record, in CSV the first column",
            remedy="leave label_size=0 out of the channel's ContentType",
        )
    if labels.ndim != 1:
        raise DataError(
            "LABEL_NOT_AN_INTEGER",
            f"each record has {labels.shape[1]} labels",
            where=where,
            expected="one label a record",
            remedy="set label_size=1 in the channel's ContentType",
        )
    whole = (labels == np.rint(labels)) & (np.abs(labels) <= _EXACT_LIMIT)  # neither is NaN
    if not whole.all():
        record = int(np.flatnonzero(~whole)[0])
        raise DataError(
            "LABEL_NOT_AN_INTEGER",
            f"label {labels[record]} is no class",
            where=place(where, record + 1),
            expected=f"an integer of at most {_EXACT_LIMIT:,}",
            remedy="number the classes; for CSV the label is the first column",
        )
    return labels.astype(np.int64)


def _listed(classes: NDArray[np.int64], limit: int = 12) -> str:
    shown = ", ".join(str(each) for each in classes[:limit])
    return shown if len(classes) <= limit else f"{shown} … ({len(classes)} in all)"
