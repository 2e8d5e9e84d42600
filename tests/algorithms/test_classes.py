"""Labels of a channel become classes, or an error that names the record."""

from __future__ import annotations

import numpy as np
import pytest

from byoa.algorithms.classes import find_classes, index_classes
from byoa.container.errors import DataError


def labels(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_classes_are_the_distinct_labels_in_order() -> None:
    classes, indices = find_classes(labels(7, -2, 7, 100, -2))
    assert classes.dtype == indices.dtype == np.int64
    assert classes.tolist() == [-2, 7, 100]
    assert indices.tolist() == [1, 0, 1, 2, 0]
    assert index_classes(labels(100, -2), classes, "validation").tolist() == [2, 0]


@pytest.mark.parametrize(
    ("given", "code", "place", "message"),
    [
        (None, "LABELS_MISSING", "train", "no label"),
        (np.zeros((3, 2), np.float32), "LABEL_NOT_AN_INTEGER", "train", "2 labels"),
        (labels(1, 2, 2.5), "LABEL_NOT_AN_INTEGER", "train record 3", "label 2.5"),
        (labels(1, np.nan), "LABEL_NOT_AN_INTEGER", "train record 2", "label nan"),
        (labels(np.inf, 1), "LABEL_NOT_AN_INTEGER", "train record 1", "label inf"),
        (labels(1, 2**24 + 2), "LABEL_NOT_AN_INTEGER", "train record 2", "label 16777218"),
        (labels(4, 4, 4), "LABELS_OF_ONE_CLASS", "train", "every label is 4"),
    ],
)
def test_labels_that_are_no_classes_are_refused(
    given: np.ndarray | None, code: str, place: str, message: str
) -> None:
    with pytest.raises(DataError) as caught:
        find_classes(given)
    assert (caught.value.code, caught.value.where) == (code, place)
    assert message in caught.value.message


def test_a_label_that_training_did_not_have_is_named_with_its_record() -> None:
    classes, _ = find_classes(labels(*range(20)))
    with pytest.raises(DataError) as caught:
        index_classes(labels(3, 25), classes, "validation")
    assert caught.value.code == "LABEL_UNKNOWN"
    assert caught.value.where == "validation record 2"
    assert caught.value.message == "label 25 does not occur in the training data"
    assert "11 … (20 in all)" in str(caught.value.expected)
