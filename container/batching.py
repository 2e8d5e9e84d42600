"""Batching: runs of records cut into batches of one size, and shuffled within a bounded buffer.

Everything here takes and gives batches of any length and copies as little as it can: a batch that
lies within one run is a view of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from byoa.container.formats.base import Batch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rows = slice | NDArray[np.intp]

__all__ = ["concatenate", "in_batches", "rows", "shuffled", "weight"]

_STEP_RECORDS = 4096  # a longer step gains nothing, and its records leave the buffer together


def rows(batch: Batch, which: Rows) -> Batch:
    return Batch(batch.features[which], None if batch.labels is None else batch.labels[which])


def weight(batch: Batch) -> int:
    """The bytes of its arrays."""
    return batch.features.nbytes + (0 if batch.labels is None else batch.labels.nbytes)


def concatenate(batches: Sequence[Batch]) -> Batch:
    """One batch of several of one width."""
    import numpy as np

    if len(batches) == 1:
        return batches[0]
    labels = [batch.labels for batch in batches if batch.labels is not None]
    return Batch(
        np.concatenate([batch.features for batch in batches]),
        np.concatenate(labels) if labels else None,
    )


def in_batches(runs: Iterable[Batch], size: int) -> Iterator[Batch]:
    """The records in order, `size` a batch; the last has what is left."""
    held: list[Batch] = []
    missing = size
    for run in runs:
        start, count = 0, len(run.features)
        while count - start >= missing:
            held.append(rows(run, slice(start, start + missing)))
            start += missing
            yield concatenate(held)
            held, missing = [], size
        if start < count:
            held.append(rows(run, slice(start, count)))
            missing -= count - start
    if held:
        yield concatenate(held)


def shuffled(runs: Iterable[Batch], size: int, seed: Sequence[int]) -> Iterator[Batch]:
    """The records in an order that depends on them, `size` and `seed` alone.

    A buffer holds `size` records. Every step takes as many as a quarter of them out, at random,
    and puts the next ones of the stream in their place. What fits into the buffer whole is
    shuffled whole.
    """
    import numpy as np

    random = np.random.default_rng(seed)
    step = min(-(-size // 4), _STEP_RECORDS)
    runs = iter(runs)
    buffer, rest = _filled(runs, size)
    if buffer is None:
        return
    # Steps of one length, however the stream came: else the order would depend on that, too.
    for run in in_batches(_with_first(rest, runs), step):
        places = random.choice(len(buffer.features), len(run.features), replace=False)
        yield rows(buffer, places)
        buffer.features[places] = run.features
        if buffer.labels is not None:
            buffer.labels[places] = run.labels
    yield rows(buffer, random.permutation(len(buffer.features)))


def _filled(runs: Iterator[Batch], size: int) -> tuple[Batch | None, Batch | None]:
    """The first `size` records, or all if there are fewer, as arrays of their own; and what is
    left of the run that the last one came in."""
    held: list[Batch] = []
    missing = size
    for run in runs:
        held.append(rows(run, slice(missing)))
        missing -= len(run.features)
        if missing <= 0:
            rest = rows(run, slice(len(run.features) + missing, None))
            buffer = concatenate(held)
            return Batch(
                buffer.features.copy(), None if buffer.labels is None else buffer.labels.copy()
            ) if len(held) == 1 else buffer, rest
    return (concatenate(held), None) if held else (None, None)


def _with_first(first: Batch | None, runs: Iterator[Batch]) -> Iterator[Batch]:
    if first is not None:
        yield first
    yield from runs
