"""The labels of linear-learner: one number a record, 0 or 1, or 0 to num_classes - 1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from byoa.algorithms.streaming import Origin
from byoa.container.errors import DataError


def require_labels(
    values: Any, labels: NDArray[np.float32] | None, origin: Origin
) -> NDArray[np.float32]:
    """The labels (n,). Raises DataError: LABELS_MISSING, LABEL_INVALID."""
    if labels is None:
        raise DataError(
            "LABELS_MISSING", "the records have no label", where=origin.channel,
            expected="a label for each record, in CSV the first column",
            remedy="leave label_size=0 out of the channel's ContentType",
        )
    if labels.ndim != 1:
        raise DataError(
            "LABEL_INVALID", f"each record has {labels.shape[1]} labels", where=origin.channel,
            expected="one label a record", remedy="set label_size=1 in the channel's ContentType",
        )
    if values.predictor_type == "regressor":
        return labels
    binary = values.predictor_type == "binary_classifier"
    classes = 2 if binary else values.num_classes
    wrong = np.flatnonzero(~((labels >= 0) & (labels < classes) & (labels == np.rint(labels))))
    if len(wrong):
        index = int(wrong[0])
        raise DataError(
            "LABEL_INVALID", f"label {labels[index]:g} is no class of a {values.predictor_type}",
            where=origin.record(index),
            expected="0 or 1" if binary else f"an integer, 0 to {classes - 1}",
            remedy="number the classes from 0; in CSV the label is the first column",
        )
    return labels
