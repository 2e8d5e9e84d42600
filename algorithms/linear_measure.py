"""Measuring linear-learner's models on a channel: sums over batches and hosts, the best model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from byoa.algorithms import linear_metrics as metrics
from byoa.algorithms.array_state import State
from byoa.algorithms.linear_options import BINARY, MULTICLASS, REGRESSOR
from byoa.algorithms.linear_settings import Settings

_CALIBRATION_RECORDS = 10_000_000


class Measurement:
    """One host's sums. Of a binary classifier the first records' outputs are kept as well."""

    def __init__(
        self, settings: Settings, values: Any, weights: Tensor, label_scale: float
    ) -> None:
        models, outputs = weights.shape[1:]
        self.settings = settings
        self.top_k = min(values.accuracy_top_k, outputs)
        self.label_scale = label_scale
        new = weights.new_zeros
        self.totals: State = {"loss": new(models), "mass": new(models), "records": 0}
        self.outputs: list[Tensor] = []
        self.targets: list[Tensor] = []
        wanted = values.num_calibration_samples
        self.room = _CALIBRATION_RECORDS // models if wanted == "auto" else wanted
        if settings.kind == REGRESSOR:
            self.totals.update(squares=new(models), absolutes=new(models))
        elif settings.kind == MULTICLASS:
            self.totals.update(
                right=new((models, outputs)), given=new((models, outputs)), there=new(outputs),
                top=new(models), gain=new(models),
            )

    def add(self, outputs: Tensor, targets: Tensor, value: Tensor, share: Tensor | None) -> None:
        """Outputs are (n, M, K), losses (n, M)."""
        totals = self.totals
        if share is None:
            mass = torch.full_like(totals["mass"], len(value))
        else:
            value = value * share
            mass = share.sum(dim=0, dtype=torch.float64).expand(value.shape[1])
        totals["loss"] = totals["loss"] + value.sum(dim=0, dtype=torch.float64)
        totals["mass"] = totals["mass"] + mass
        totals["records"] += len(value)
        if self.settings.kind == REGRESSOR:
            error = (outputs[:, :, 0] - targets[:, None]).double() * self.label_scale
            totals["squares"] += (error**2).sum(dim=0)
            totals["absolutes"] += error.abs().sum(dim=0)
        elif self.settings.kind == MULTICLASS:
            self._add_classes(outputs, targets)
        elif self.room > 0:
            self.outputs.append(outputs[: self.room, :, 0])
            self.targets.append(targets[: self.room])
            self.room -= len(self.targets[-1])

    def _add_classes(self, outputs: Tensor, targets: Tensor) -> None:
        totals = self.totals
        count, models, classes = outputs.shape
        index = targets[:, None, None].expand(-1, models, 1)
        of_target = outputs.gather(2, index)
        rank = (outputs > of_target).sum(dim=2)  # 0: no other class has more
        given = outputs.argmax(dim=2)
        totals["top"] += (rank < self.top_k).sum(dim=0)
        totals["gain"] += (1 / torch.log2(rank.double() + 2)).sum(dim=0)
        totals["there"] += torch.bincount(targets, minlength=classes)
        for model in range(models):
            mine = given[:, model]
            totals["given"][model] += torch.bincount(mine, minlength=classes)
            right = targets[mine == targets]
            totals["right"][model] += torch.bincount(right, minlength=classes)

    def sums(self) -> State:
        if self.settings.kind != BINARY:
            return self.totals
        models = len(self.totals["loss"])
        empty = torch.empty((0, models))
        return {
            **self.totals,
            "outputs": torch.cat(self.outputs).cpu() if self.outputs else empty,
            "targets": torch.cat(self.targets).cpu() if self.targets else empty[:, 0],
        }


def choose(settings: Settings, values: Any, parts: Sequence[State]) -> tuple[int, float, float]:
    """The best model, a binary classifier's threshold, and what it is the best by; the greater
    the better."""
    sums = _joined(parts)
    losses = -sums["loss"] / sums["mass"]
    losses = np.where(np.isfinite(losses), losses, -np.inf)
    name = values.binary_classifier_model_selection_criteria
    best = int(losses.argmax())
    if settings.kind != BINARY or name == "loss_function" or not len(sums["targets"]):
        return best, 0.0, float(losses[best])
    criterion = metrics.Criterion(
        name, values.f_beta, values.target_recall, values.target_precision
    )
    found = [
        metrics.calibrate(metrics.curve(outputs, sums["targets"]), criterion, 0.0)
        if np.isfinite(outputs).all() else (0.0, -np.inf)
        for outputs in sums["outputs"].T
    ]
    # Of models that are equally good by the criterion, the one with the lower loss.
    best = max(range(len(found)), key=lambda model: (found[model][1], losses[model]))
    threshold, value = found[best]
    return best, float(np.clip(threshold, -1e30, 1e30)), value


def report(
    settings: Settings, values: Any, parts: Sequence[State], model: int, threshold: float
) -> dict[str, float]:
    """The metrics of one model."""
    sums = _joined(parts)
    scores = {"objective_loss": float(sums["loss"][model] / sums["mass"][model])}
    if settings.kind == REGRESSOR:
        scores["mse"] = float(sums["squares"][model] / sums["records"])
        scores["absolute_loss"] = float(sums["absolutes"][model] / sums["records"])
    elif settings.kind == MULTICLASS:
        scores |= metrics.multiclass(sums, model, values.f_beta)
    elif len(sums["targets"]):
        found = metrics.curve(sums["outputs"][:, model], sums["targets"])
        scores |= metrics.binary(found, threshold, values.f_beta)
    return scores


def _joined(parts: Sequence[State]) -> dict[str, Any]:
    """All hosts' sums as NumPy arrays."""
    plain = [
        {
            name: value.cpu().numpy() if isinstance(value, Tensor) else value
            for name, value in part.items()
        }
        for part in parts
    ]
    joined = dict(plain[0])
    for other in plain[1:]:
        for name, value in other.items():
            if name in ("outputs", "targets"):
                joined[name] = np.concatenate([joined[name], value])
            else:
                joined[name] = joined[name] + value
    return joined
