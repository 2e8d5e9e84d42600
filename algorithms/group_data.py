"""A channel's records on the hosts of a job: what they must agree on before they train together."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from byoa.algorithms.classes import distinct_labels, index_classes
from byoa.algorithms.process_group import Group
from byoa.container.errors import DataError
from byoa.container.formats.base import Batch


def describe(batch: Batch | None) -> bytes:
    """What the processes must agree on."""
    facts = {
        "records": 0 if batch is None else len(batch.features),
        "features": None if batch is None else batch.features.shape[1],
        "classes": [] if batch is None else distinct_labels(batch.labels, "train").tolist(),
    }
    return json.dumps(facts).encode()


def agree(facts: list[dict[str, Any]], divided: bool) -> tuple[int, tuple[int, ...]]:
    """The width of a record, and the records of each process."""
    widths = {each["features"] for each in facts} - {None}
    counts = tuple(each["records"] for each in facts)
    if len(widths) != 1 or (not divided and len(set(counts)) > 1):
        shapes = ", ".join(f"{each['records']} of {each['features']} features" for each in facts)
        raise DataError(
            "HOSTS_DATA_DIFFERS", f"the hosts have, in their order, {shapes}", where="train",
            expected="records of one width, and the same ones on each host unless the channel is"
            " ShardedByS3Key",
        )
    return int(widths.pop()), counts


def arrays(
    batch: Batch | None, classes: NDArray[np.int64], width: int, where: str
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features, and the index of each record's class."""
    if batch is None:
        return np.empty((0, width), np.float32), np.empty(0, np.int64)
    return batch.features, index_classes(batch.labels, classes, where)


def moments(features: NDArray[np.float32], group: Group | None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature; 1 for one that does not vary. Where the records
    are divided among a group, those of all records."""
    if group is None:
        mean = features.mean(axis=0, dtype=np.float64)
        std = features.std(axis=0, dtype=np.float64)
    else:
        count = _summed(group, np.array([len(features)], np.float64))
        mean = _summed(group, features.sum(axis=0, dtype=np.float64)) / count
        std = np.sqrt(_summed(group, ((features - mean) ** 2).sum(axis=0)) / count)
    # Smaller than float32 can tell apart at that mean: rounding, not variation.
    std[std <= np.finfo(np.float32).eps * np.abs(mean)] = 1.0
    return torch.from_numpy(mean).float(), torch.from_numpy(std).float()


def _summed(group: Group, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum over the group, added up in the order of ranks."""
    parts = [np.frombuffer(each, np.float64) for each in group.all_gather(values.tobytes())]
    total: NDArray[np.float64] = np.sum(parts, axis=0, dtype=np.float64)
    return total
