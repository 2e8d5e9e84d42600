"""The metrics of linear-learner, out of what can be summed over batches and hosts.

Regression and classes are sums a model; a binary classifier's scores are kept, because its
threshold and the area under the curve depend on their order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Criterion:
    """What a binary classifier's threshold and model are chosen by."""

    name: str
    beta: float
    target_recall: float
    target_precision: float


@dataclass(frozen=True)
class Curve:
    """True and false positives at each threshold, from the highest score down; the first entry
    is for a threshold above all scores. `thresholds` lie between neighbouring scores."""

    thresholds: Array
    true: Array
    false: Array
    positives: float
    negatives: float

    @property
    def precision(self) -> Array:
        return _ratio(self.true, self.true + self.false)

    @property
    def recall(self) -> Array:
        return _ratio(self.true, np.full_like(self.true, self.positives))

    @property
    def accuracy(self) -> Array:
        return (self.true + self.negatives - self.false) / (self.positives + self.negatives)

    def f_beta(self, beta: float) -> Array:
        return f_score(self.precision, self.recall, beta)

    @property
    def area(self) -> float | None:
        """Under the receiver operating characteristic; None where there is only one class."""
        if not self.positives or not self.negatives:
            return None
        steps = np.diff(self.false)
        heights = (self.true[1:] + self.true[:-1]) / 2
        return float((steps * heights).sum() / (self.positives * self.negatives))

    def at(self, threshold: float) -> int:
        """The entry of the records whose score is at least `threshold`."""
        return int(np.searchsorted(-self.thresholds, -threshold, side="right")) - 1


def curve(scores: NDArray[np.float32], labels: NDArray[np.float32]) -> Curve:
    """The curve of one model's scores (n,) with labels 0 and 1 (n,)."""
    order = np.argsort(-scores, kind="stable")
    ordered, wanted = scores[order].astype(np.float64), labels[order].astype(np.float64)
    ends = np.flatnonzero(np.append(np.diff(ordered), -1.0))  # the last record of equal scores
    true = np.cumsum(wanted)[ends]
    false = ends + 1 - true
    kept = ordered[ends]
    between = np.append((kept[:-1] + kept[1:]) / 2, kept[-1] - 1)
    return Curve(
        np.concatenate([[np.inf], between]),
        np.concatenate([[0.0], true]),
        np.concatenate([[0.0], false]),
        float(wanted.sum()),
        float(len(wanted) - wanted.sum()),
    )


def calibrate(found: Curve, criterion: Criterion, usual: float) -> tuple[float, float]:
    """The threshold that is best by the criterion, and what it reaches there; the greater the
    better. Of equals the one nearest to `usual` is taken."""
    recall, precision = found.recall, found.precision
    if criterion.name == "f_beta":
        value = found.f_beta(criterion.beta)
    elif criterion.name == "precision_at_target_recall":
        value = np.where(recall >= criterion.target_recall, precision, -1.0)
    elif criterion.name == "recall_at_target_precision":
        # Where no threshold reaches the precision, the nearest to it.
        reached = (precision >= criterion.target_precision) & (found.true > 0)
        value = np.where(reached, recall, precision - 2.0)
    else:
        value = found.accuracy
    best = np.flatnonzero(value >= value.max() - 1e-12)
    thresholds = found.thresholds[best]
    nearest = best[np.abs(np.clip(thresholds, -1e300, 1e300) - usual).argmin()]
    return float(found.thresholds[nearest]), float(value[nearest])


def binary(found: Curve, threshold: float, beta: float) -> dict[str, float]:
    """The metrics of one model at its threshold."""
    index = found.at(threshold)
    metrics = {
        "binary_classification_accuracy": float(found.accuracy[index]),
        "precision": float(found.precision[index]),
        "recall": float(found.recall[index]),
        "binary_f_beta": float(found.f_beta(beta)[index]),
    }
    if found.area is not None:
        metrics["roc_auc_score"] = found.area
    return metrics


def multiclass(sums: dict[str, Array], model: int, beta: float) -> dict[str, float]:
    """The metrics of one model. Macro means are over the classes that occur."""
    records = float(sums["records"])
    right, given, there = sums["right"][model], sums["given"][model], sums["there"]
    precision, recall = _ratio(right, given), _ratio(right, there)
    occurs = (there + given) > 0
    return {
        "multiclass_accuracy": float(right.sum() / records),
        "multiclass_top_k_accuracy": float(sums["top"][model] / records),
        "dcg": float(sums["gain"][model] / records),
        "macro_precision": float(precision[occurs].mean()),
        "macro_recall": float(recall[occurs].mean()),
        "macro_f_beta": float(f_score(precision, recall, beta)[occurs].mean()),
    }


def f_score(precision: Array, recall: Array, beta: float) -> Array:
    return _ratio((1 + beta**2) * precision * recall, beta**2 * precision + recall)


def _ratio(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
