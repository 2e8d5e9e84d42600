"""nearest-centroid, the README's example, against its definition and on digits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from byoa.algorithms.nearest_centroid import NearestCentroid
from byoa.container.errors import DataError


@pytest.mark.filterwarnings("ignore:self.within_class_std_dev_")  # pixels that are always 0
def test_it_classifies_digits_as_scikit_learn_does(job: Callable[..., Any], digits: Any) -> None:
    from sklearn.neighbors import NearestCentroid as Peer

    trained = job(NearestCentroid).channels(train=digits.train)
    algorithm = trained.train()
    model = algorithm.load(trained.layout.model, "cpu")
    records, labels = digits.test
    predicted = algorithm.predict(model, records.astype(np.float32))
    assert (predicted == Peer().fit(*digits.train).predict(records)).all()
    assert predicted.dtype == np.int64
    assert (predicted == labels).mean() > 0.85
    seen = algorithm.predict(model, digits.train[0].astype(np.float32)) == digits.train[1]
    assert trained.metrics("train:accuracy") == [(None, pytest.approx(seen.mean()))]


def test_cosine_looks_at_the_direction_only(job: Callable[..., Any]) -> None:
    records = np.array([[10, 0], [12, 0], [0, 1], [0.1, 1.1]])
    data = (records, np.array([3, 3, 8, 8]))
    far = np.array([[0.2, 0.1], [0, 50]], np.float32)
    answers = {}
    for metric in ("l2", "cosine"):
        trained = job(NearestCentroid, metric).channels(train=data)
        algorithm = trained.train(metric=metric)
        model = algorithm.load(trained.layout.model, "cpu")
        answers[metric] = algorithm.predict(model, far).tolist()
    assert answers == {"l2": [8, 8], "cosine": [3, 8]}


def test_the_nearest_is_exact_far_from_the_origin(job: Callable[..., Any]) -> None:
    """|x|² - 2x·m + |m|² loses every digit of float32 here; the means are float64."""
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    records = np.float32(1e5) + rng.normal(size=(300, 8)) + labels[:, None]
    records = records.astype(np.float32)
    trained = job(NearestCentroid).channels(train=_text(labels, records))
    algorithm = trained.train()
    model = algorithm.load(trained.layout.model, "cpu")
    means = np.stack([records[labels == k].astype(float).mean(axis=0) for k in range(3)])
    distances = np.linalg.norm(records[:, None].astype(float) - means, axis=2)
    assert (algorithm.predict(model, records) == distances.argmin(axis=1)).all()


def test_the_model_file_holds_no_pickle(job: Callable[..., Any], digits: Any) -> None:
    trained = job(NearestCentroid).channels(train=digits.train)
    trained.train()
    with np.load(trained.layout.model / "centroids.npz", allow_pickle=False) as arrays:
        assert {name: arrays[name].shape for name in arrays} == {
            "means": (10, 64),
            "classes": (10,),
        }


def test_records_without_a_label_are_refused(job: Callable[..., Any], digits: Any) -> None:
    unlabelled = job(NearestCentroid).channels(
        "text/csv;label_size=0", train=(digits.train[0], None)
    )
    with pytest.raises(DataError) as caught:
        unlabelled.train()
    assert caught.value.code == "LABELS_MISSING"


def _text(labels: np.ndarray, records: np.ndarray) -> str:
    rows = zip(labels, records, strict=True)
    return "".join(f"{label},{','.join(f'{x:.9g}' for x in row)}\n" for label, row in rows)
