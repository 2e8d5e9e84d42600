"""Several requests in one call of predict: joined before it, parted after it.

Records are decoded already and answers not yet encoded, so that requests of any content types
share a call. What fails together is tried alone, so that a bad record fails its own request only,
and says which record it is.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from byoa.container.errors import text_of
from byoa.serve.model import Loaded, check_predictions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from byoa.serve.visit import Visit

# A failing call that took longer is not repeated to find the record.
_SEARCH_SECONDS = 1.0


class Work(NamedTuple):
    """One request's records (n, features) for a model."""

    model: Loaded
    features: NDArray[np.float32]
    visit: Visit | None = None  # of the request, which is told how the call went

    def joins(self, other: Work) -> bool:
        """Whether both may share a call."""
        return (
            self.model is other.model and self.features.shape[1:] == other.features.shape[1:]
        )


class RecordFailed(Exception):
    """What predict raised for one request; `record` is the first of its records that raises it,
    counted from 1, where that is known."""

    def __init__(self, error: Exception, record: int | None) -> None:
        super().__init__(text_of(error))
        self.error = error
        self.record = record


def predict(works: Sequence[Work]) -> list[Any]:
    """For each work its predictions, or the RecordFailed to raise for it."""
    if len(works) == 1:
        return [_alone(works[0])]
    import numpy as np

    sizes = [len(work.features) for work in works]
    try:
        joined = _call(works[0].model, np.concatenate([work.features for work in works]))
    except Exception:  # of one of them: which, is found out
        return [_alone(work) for work in works]
    return _part(joined, sizes)


def _alone(work: Work) -> Any:
    started = time.perf_counter()
    try:
        return _call(work.model, work.features)
    except Exception as error:
        brief = time.perf_counter() - started < _SEARCH_SECONDS
        return RecordFailed(error, _first_bad(work) if brief else None)


def _call(model: Loaded, features: NDArray[np.float32]) -> Any:
    """Predict, with the records padded to the model's next bucket; one prediction for each."""
    count = len(features)
    bucket = next((size for size in model.batch_buckets if size >= count), count)
    if bucket > count:
        import numpy as np

        features = np.concatenate([features, np.repeat(features[-1:], bucket - count, axis=0)])
    predictions = model.predict(features)
    check_predictions(predictions, bucket)
    return _part(predictions, [count])[0] if bucket > count else predictions


def _part(predictions: Any, sizes: Sequence[int]) -> list[Any]:
    """The predictions of each work, in order."""
    if isinstance(predictions, dict):
        columns = {name: _part(column, sizes) for name, column in predictions.items()}
        return [{name: parts[i] for name, parts in columns.items()} for i in range(len(sizes))]
    if not hasattr(predictions, "__getitem__"):  # only __array__: an array on its way
        import numpy as np

        predictions = np.asarray(predictions)
    parts, start = [], 0
    for size in sizes:
        parts.append(predictions[start : start + size])
        start += size
    return parts


def _first_bad(work: Work) -> int | None:
    """The first record with which predict fails, by halving; None where it takes several, or
    where they say nothing about it (memory)."""
    low, high = 0, len(work.features)
    if high == 1:
        return 1
    while high - low > 1:
        middle = (low + high) // 2
        if _fails(work, low, middle):
            high = middle
        elif _fails(work, middle, high):
            low = middle
        else:
            return None
    return low + 1


def _fails(work: Work, start: int, stop: int) -> bool:
    try:
        _call(work.model, work.features[start:stop])
    except Exception:
        return True
    return False
