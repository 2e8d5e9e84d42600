"""Joining requests and parting their predictions: each gets what it would get alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byoa.container.errors import AlgorithmError
from byoa.serve.batching import RecordFailed, Work, predict


@dataclass
class Model:
    """Answers in one of the shapes that predict may; fails with a negative record."""

    shape: str = "array"
    max_batch: int | None = None
    batch_buckets: tuple[int, ...] = ()
    calls: list[int] = field(default_factory=list)

    def predict(self, records: Any) -> Any:
        self.calls.append(len(records))
        if (records < 0).any():
            raise ValueError("negative")
        values = records[:, 0] * 2
        if self.shape == "list":
            return [f"is {value:g}" for value in values]
        if self.shape == "columns":
            return {"label": values.astype(int), "score": np.stack([values, -values], axis=1)}
        if self.shape == "rows":
            return np.stack([values, values + 1], axis=1)
        return values

    def work(self, values: list[float]) -> Work:
        return Work(self, np.array(values, dtype=np.float32).reshape(-1, 1))


def plain(outcome: Any) -> Any:
    if isinstance(outcome, RecordFailed):
        return type(outcome.error), outcome.record
    if isinstance(outcome, dict):
        return {name: plain(column) for name, column in outcome.items()}
    return outcome if isinstance(outcome, list) else outcome.tolist()


requests = st.lists(
    st.lists(st.integers(-1, 50).map(float), min_size=1, max_size=6), min_size=1, max_size=8
)


@given(requests, st.sampled_from(["array", "rows", "list", "columns"]),
       st.sampled_from([(), (4,), (1, 2, 4, 8, 16)]))
def test_any_composition_gives_each_request_what_it_gets_alone(bodies, shape, buckets):
    model = Model(shape, batch_buckets=buckets)
    together = predict([model.work(values) for values in bodies])
    alone = [predict([model.work(values)])[0] for values in bodies]
    assert list(map(plain, together)) == list(map(plain, alone))


@given(st.lists(st.sampled_from([1.0, -1.0]), min_size=1, max_size=40))
def test_the_first_bad_record_is_found(values):
    (outcome,) = predict([Model().work(values)])
    if -1.0 in values:
        assert outcome.record == values.index(-1.0) + 1
    else:
        assert plain(outcome) == [2.0] * len(values)


def test_calls_are_filled_up_to_the_models_shapes():
    model = Model(batch_buckets=(4, 8))
    outcomes = predict([model.work([1, 2, 3]), model.work([4, 5])])
    assert list(map(plain, outcomes)) == [[2, 4, 6], [8, 10]]
    predict([model.work([1])])
    predict([model.work([1] * 9)])
    assert model.calls == [8, 4, 9]


def test_a_model_that_answers_for_too_few_fails_every_request_with_that():
    model = Model()
    model.predict = lambda records: np.zeros(1)
    first, second = predict([model.work([1, 2]), model.work([3, 4])])
    for outcome in (first, second):
        assert isinstance(outcome.error, AlgorithmError)
        assert outcome.error.code == "PREDICTIONS_MISMATCH"


def test_a_fault_of_the_records_together_names_none_of_them():
    model = Model()

    def predict_two_at_most(records):
        if len(records) > 2:
            raise MemoryError
        return records[:, 0]

    model.predict = predict_two_at_most
    (outcome,) = predict([model.work([1, 2, 3, 4])])
    assert isinstance(outcome.error, MemoryError) and outcome.record is None


@pytest.mark.parametrize("kind", [np.asarray, tuple, list])
def test_whatever_can_be_sliced_is_parted(kind):
    model = Model()
    model.predict = lambda records: kind(records[:, 0])
    outcomes = predict([model.work([1, 2]), model.work([3])])
    assert [list(each) for each in outcomes] == [[1, 2], [3]]
