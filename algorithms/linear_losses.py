"""The losses of linear-learner: value, derivative and curvature by a record's linear outputs.

Outputs are (n, models) for one output a model, (n, models, classes) for softmax; targets (n,) or,
where each model has its own view of them, nothing else. All in float32 on the outputs' device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

LOGISTIC, HINGE, SOFTMAX, SQUARED = "logistic", "hinge_loss", "softmax_loss", "squared_loss"
ABSOLUTE, QUANTILE, HUBER = "absolute_loss", "quantile_loss", "huber_loss"
EPS_SQUARED, EPS_ABSOLUTE = "eps_insensitive_squared_loss", "eps_insensitive_absolute_loss"

REGRESSION = (SQUARED, ABSOLUTE, EPS_SQUARED, EPS_ABSOLUTE, QUANTILE, HUBER)
# Those with a continuous derivative, whose minimum a second-order method finds.
SMOOTH = (LOGISTIC, SOFTMAX, SQUARED, EPS_SQUARED, HUBER)


class Terms(NamedTuple):
    """Of each record: value and mean curvature (n, models), derivative shaped as the outputs."""

    value: Tensor
    derivative: Tensor
    curvature: Tensor


Loss = Callable[[Tensor, Tensor], Terms]


class Shape(NamedTuple):
    """The parameters that losses have."""

    margin: float = 1.0
    quantile: float = 0.5
    insensitivity: float = 0.01
    huber_delta: float = 1.0


def find(name: str, shape: Shape) -> Loss:
    """The loss of that name."""
    return _LOSSES[name](shape)


def _logistic(shape: Shape) -> Loss:
    def terms(outputs: Tensor, targets: Tensor) -> Terms:
        wanted = targets[:, None]
        probability = outputs.sigmoid()
        return Terms(
            softplus(outputs) - wanted * outputs,
            probability - wanted,
            probability * (1 - probability),
        )

    return terms


def _hinge(shape: Shape) -> Loss:
    def terms(outputs: Tensor, targets: Tensor) -> Terms:
        sign = 2 * targets[:, None] - 1
        missing = (shape.margin - sign * outputs).clamp_(min=0)
        return Terms(missing, -sign * (missing > 0), torch.zeros_like(missing))

    return terms


def _softmax(shape: Shape) -> Loss:
    def terms(outputs: Tensor, targets: Tensor) -> Terms:
        total = outputs.logsumexp(dim=2)
        index = targets[:, None, None].expand(-1, outputs.shape[1], 1)
        value = total - outputs.gather(2, index)[:, :, 0]
        probability = (outputs - total[:, :, None]).exp_()
        curvature = (probability * (1 - probability)).mean(dim=2)
        derivative = probability.scatter_add_(2, index, probability.new_tensor(-1.0).expand(
            index.shape
        ))
        return Terms(value, derivative, curvature)

    return terms


def _squared(shape: Shape) -> Loss:
    def terms(outputs: Tensor, targets: Tensor) -> Terms:
        error = outputs - targets[:, None]
        return Terms(error**2, 2 * error, torch.full_like(error, 2))

    return terms


def _absolute(shape: Shape) -> Loss:
    def terms(outputs: Tensor, targets: Tensor) -> Terms:
        error = outputs - targets[:, None]
        return Terms(error.abs(), error.sign(), torch.zeros_like(error))

    return terms


def _eps_squared(shape: Shape) -> Loss:
    def terms(outputs: Tensor, targets: Tensor) -> Terms:
        error = outputs - targets[:, None]
        beyond = (error.abs() - shape.insensitivity).clamp_(min=0)
        return Terms(beyond**2, 2 * beyond * error.sign(), 2.0 * (beyond > 0))

    return terms


def _eps_absolute(shape: Shape) -> Loss:
    def terms(outputs: Tensor, targets: Tensor) -> Terms:
        error = outputs - targets[:, None]
        beyond = (error.abs() - shape.insensitivity).clamp_(min=0)
        return Terms(beyond, error.sign() * (beyond > 0), torch.zeros_like(error))

    return terms


def _quantile(shape: Shape) -> Loss:
    # Least where a label is below the prediction with probability `quantile`.
    above, below = shape.quantile, 1 - shape.quantile

    def terms(outputs: Tensor, targets: Tensor) -> Terms:
        error = targets[:, None] - outputs
        value = torch.maximum(above * error, -below * error)
        derivative = torch.where(error > 0, -above, below)
        return Terms(value, derivative.to(error.dtype), torch.zeros_like(error))

    return terms


def _huber(shape: Shape) -> Loss:
    delta = shape.huber_delta

    def terms(outputs: Tensor, targets: Tensor) -> Terms:
        error = outputs - targets[:, None]
        inside = error.clamp(-delta, delta)
        value = inside * (error - inside / 2)
        return Terms(value, inside, (error.abs() < delta).to(error.dtype))

    return terms


_LOSSES: dict[str, Callable[[Shape], Loss]] = {
    LOGISTIC: _logistic, HINGE: _hinge, SOFTMAX: _softmax, SQUARED: _squared,
    ABSOLUTE: _absolute, EPS_SQUARED: _eps_squared, EPS_ABSOLUTE: _eps_absolute,
    QUANTILE: _quantile, HUBER: _huber,
}
