"""Which of linear-learner's hyperparameters have an effect with which others.

SageMaker passes over a hyperparameter that the others leave without one; here it is refused, as
whoever gave it expects something of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

REGRESSOR, BINARY, MULTICLASS = "regressor", "binary_classifier", "multiclass_classifier"


class Resolved(NamedTuple):
    """What the rules depend on and a training has to find out."""

    loss: str
    optimizer: str
    scales: bool  # whether the training scales features by their deviations
    earlier: bool  # whether it starts from a model in the channel `model`


def without_effect(values: Any, resolved: Resolved) -> list[str]:
    """A sentence for each hyperparameter that is not at its default and has no effect."""
    fields = type(values).fields()
    found: list[str] = []
    for name, works, needs in _rules(values, resolved):
        value = getattr(values, name)
        if not works and value != fields[name].default:
            shown = str(value).lower() if isinstance(value, bool) else value
            found.append(f"{name} = {shown} has no effect here, it needs {needs}")
    return found


def _rules(values: Any, resolved: Resolved) -> Iterator[tuple[str, bool, str]]:
    """Name, whether it works, and what it takes."""
    yield from _of_kind(values)
    yield from _of_loss(values, resolved)
    yield from _of_steps(values, resolved)
    yield from _of_numbers(values, resolved)
    yield from _of_start(values, resolved)


def _of_kind(values: Any) -> Iterator[tuple[str, bool, str]]:
    kind = values.predictor_type
    for name, wanted in (
        ("num_classes", MULTICLASS), ("accuracy_top_k", MULTICLASS),
        ("balance_multiclass_weights", MULTICLASS), ("positive_example_weight_mult", BINARY),
        ("binary_classifier_model_selection_criteria", BINARY),
        ("num_calibration_samples", BINARY),
    ):
        yield name, kind == wanted, f"predictor_type={wanted}"
    yield "f_beta", kind != REGRESSOR, f"predictor_type={BINARY} or {MULTICLASS}"
    for name, criterion in (
        ("target_recall", "precision_at_target_recall"),
        ("target_precision", "recall_at_target_precision"),
    ):
        chosen = values.binary_classifier_model_selection_criteria
        works = kind == BINARY and chosen == criterion
        yield name, works, f"binary_classifier_model_selection_criteria={criterion}"


def _of_loss(values: Any, resolved: Resolved) -> Iterator[tuple[str, bool, str]]:
    insensitive = ("eps_insensitive_squared_loss", "eps_insensitive_absolute_loss")
    for name, losses in (
        ("margin", ("hinge_loss",)), ("quantile", ("quantile_loss",)),
        ("loss_insensitivity", insensitive), ("huber_delta", ("huber_loss",)),
    ):
        yield name, resolved.loss in losses, f"loss={' or '.join(losses)}"


def _of_steps(values: Any, resolved: Resolved) -> Iterator[tuple[str, bool, str]]:
    yield "momentum", resolved.optimizer == "sgd", "optimizer=sgd"
    for name in ("beta_1", "beta_2"):
        yield name, resolved.optimizer == "adam", "optimizer=adam"
    for name in ("lr_scheduler_step", "lr_scheduler_factor", "lr_scheduler_minimum_lr"):
        yield name, values.use_lr_scheduler, "use_lr_scheduler=true"


def _of_numbers(values: Any, resolved: Resolved) -> Iterator[tuple[str, bool, str]]:
    """Of shift and scale. To leave undone what is not done anyway is no wish without effect."""
    regression = values.predictor_type == REGRESSOR
    labels = regression and values.normalize_label is not False
    features = values.normalize_data is not False
    yield (
        "normalize_label", regression or values.normalize_label is False,
        f"predictor_type={REGRESSOR}",
    )
    yield (
        "unbias_label",
        (regression and not labels) or values.unbias_label is (True if regression else False),
        "normalize_label=false, as normalizing shifts it, too" if regression
        else f"predictor_type={REGRESSOR}",
    )
    yield (
        "unbias_data", not features or values.unbias_data is True,
        "normalize_data=false, as normalizing shifts them, too",
    )
    shifts = (values.unbias_data, values.unbias_label)[: 1 + regression]
    balanced = values.positive_example_weight_mult in ("balanced", "auto")
    measured = (
        features or labels or resolved.scales or balanced or values.balance_multiclass_weights
        or any(values.use_bias if each == "auto" else each for each in shifts)
    )
    yield "num_point_for_scaler", measured, "something to be normalized, unbiased or balanced"


def _of_start(values: Any, resolved: Resolved) -> Iterator[tuple[str, bool, str]]:
    for name in ("init_bias", "bias_lr_mult", "bias_wd_mult"):
        yield name, values.use_bias, "use_bias=true"
    for name, method in (("init_scale", "uniform"), ("init_sigma", "normal")):
        yield name, values.init_method == method, f"init_method={method}"
    for name in ("init_method", "init_scale", "init_sigma", "init_bias"):
        yield name, not resolved.earlier, "a training without the channel model"
