"""From linear-learner's hyperparameters to what is trained: loss, optimizer, the models' grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from byoa.algorithms import linear_losses as losses
from byoa.algorithms.linear_options import BINARY, MULTICLASS, REGRESSOR, Resolved, without_effect
from byoa.algorithms.linear_steps import Stepper
from byoa.container.errors import HyperparameterError

AUTO_MODELS = 32
AUTO_WD, AUTO_L1 = 1e-4, 0.0
_AUTO_RATES = {"sgd": 0.1, "adam": 0.02, "rmsprop": 0.01}
_WD_RANGE = (1e-7, 1.0)  # what SageMaker's tuning of the algorithm searches by default
_LOSSES = {
    REGRESSOR: losses.REGRESSION, BINARY: (losses.LOGISTIC, losses.HINGE),
    MULTICLASS: (losses.SOFTMAX,),
}
# Set, they ask for steps along the gradient: `auto` then is adam, as on SageMaker.
_OF_STEPS = (
    "learning_rate", "beta_1", "beta_2", "momentum", "bias_lr_mult", "lr_scheduler_step",
    "lr_scheduler_factor", "lr_scheduler_minimum_lr",
)
# Matrices of this width are solved in a moment and fit a small memory.
SECOND_ORDER_FEATURES = 3000
SECOND_ORDER = "second-order"


@dataclass(frozen=True)
class Settings:
    """What is trained. The arrays have an item a model (M,)."""

    kind: str
    outputs: int  # of a model: classes of softmax, else 1
    loss: str
    optimizer: str  # sgd, adam, rmsprop or SECOND_ORDER
    wd: np.ndarray
    l1: np.ndarray
    rates: np.ndarray
    bias_wd_mult: float
    bias_lr_mult: float
    stepper: Stepper

    @property
    def models(self) -> int:
        return len(self.wd)


def resolve(
    values: Any, features: int, validation: bool, *, earlier: bool = False
) -> Settings:
    """`validation` and `earlier`: whether there are the channels `validation` and `model`.

    Raises HyperparameterError for values that contradict each other or have no effect.
    """
    kind = values.predictor_type
    loss = _LOSSES[kind][0] if values.loss == "auto" else values.loss
    optimizer = _optimizer(values, loss, features)
    resolved = Resolved(loss, optimizer, optimizer == SECOND_ORDER, earlier)
    _check(values, kind, loss, features, resolved)
    models = _models(values, validation)
    rate = _AUTO_RATES.get(optimizer, 0.0)
    rates = np.full(models, rate if values.learning_rate == "auto" else values.learning_rate)
    if models > 1:
        rates *= np.array([1.0, 1 / 3, 3.0])[np.arange(models) % 3]
    return Settings(
        kind=kind,
        outputs=values.num_classes if kind == MULTICLASS else 1,
        loss=loss,
        optimizer=optimizer,
        wd=_grid(values.wd, AUTO_WD, models),
        l1=_grid(values.l1, AUTO_L1, models),
        rates=rates,
        bias_wd_mult=_or(values.bias_wd_mult, 0.0),
        bias_lr_mult=_or(values.bias_lr_mult, 1.0),
        stepper=Stepper(
            optimizer=optimizer,
            momentum=_or(values.momentum, 0.0) if optimizer == "sgd" else 0.0,
            beta_1=_or(values.beta_1, 0.9),
            beta_2=_or(values.beta_2, 0.999),
            every=int(_or(values.lr_scheduler_step, 100)) if values.use_lr_scheduler else 0,
            factor=_or(values.lr_scheduler_factor, 0.99),
            minimum=_or(values.lr_scheduler_minimum_lr, 1e-5),
        ),
    )


def _or(value: Any, auto: float) -> float:
    return auto if value == "auto" else float(value)


def _check(values: Any, kind: str, loss: str, features: int, resolved: Resolved) -> None:
    wrong: list[str] = []
    if loss not in _LOSSES[kind]:
        wrong.append(
            f"loss = {loss} is none of a {kind}: expected auto or {', '.join(_LOSSES[kind])}"
        )
    if kind == MULTICLASS and values.num_classes < 3:
        wrong.append("num_classes is missing: expected an integer, 3 to 1000000")
    if values.feature_dim not in ("auto", features):
        wrong.append(f"feature_dim = {values.feature_dim}: the records have {features} features")
    wrong += without_effect(values, resolved)
    if wrong:
        raise HyperparameterError(
            "HYPERPARAMETER_INVALID", "; ".join(wrong),
            remedy="leave out what has no effect, or set what it needs",
        )


def _optimizer(values: Any, loss: str, features: int) -> str:
    if values.optimizer != "auto":
        return str(values.optimizer)
    given = [name for name in _OF_STEPS if getattr(values, name) != "auto"]
    given += [] if values.use_lr_scheduler else ["use_lr_scheduler"]
    if given:
        optimizer = "sgd" if "momentum" in given else "adam"
        why = f"{', '.join(given)} set"
    elif loss not in losses.SMOOTH:
        optimizer, why = "adam", f"{loss} has no second derivative"
    elif features > SECOND_ORDER_FEATURES:
        optimizer, why = "adam", f"{features} features"
    else:
        return SECOND_ORDER
    print(f"optimizer: {optimizer} ({why})", flush=True)
    return optimizer


def _models(values: Any, validation: bool) -> int:
    if values.num_models != "auto":
        return int(values.num_models)
    # Without records apart from those of training the least regularized model always wins.
    many = values.wd == "auto" and validation
    return AUTO_MODELS if many or values.positive_example_weight_mult == "auto" else 1


def _grid(value: Any, auto: float, models: int) -> np.ndarray:
    """The first model's value as given, the others' close to it; where it is left to the
    algorithm, over all that is usual."""
    first = _or(value, auto)
    if models == 1 or first == 0:
        return np.full(models, first)
    low, high = _WD_RANGE if value == "auto" else (first / 10, first * 10)
    return np.concatenate([[first], np.geomspace(low, high, models - 1)])
