"""The first state of linear-learner's training, from the first records."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from byoa.algorithms.array_state import State
from byoa.algorithms.linear_labels import require_labels
from byoa.algorithms.linear_options import BINARY, MULTICLASS, REGRESSOR
from byoa.algorithms.linear_settings import SECOND_ORDER, Settings, resolve
from byoa.algorithms.streaming import Origin
from byoa.container.errors import DataError
from byoa.container.formats.base import Batch
from byoa.container.run import Run


def initial_state(values: Any, run: Run, sample: Batch, earlier: Any) -> State:
    """The state before the first batch, from the first records."""
    features = sample.features[: values.num_point_for_scaler]
    width = features.shape[1]
    settings = resolve(
        values, width, "validation" in run.channels, earlier=earlier is not None
    )
    labels = require_labels(values, sample.labels, Origin("train"))[: len(features)]
    mean, deviation = _moments(features)
    normalize = values.normalize_data in (True, "auto")
    unbias = values.use_bias if values.unbias_data == "auto" else values.unbias_data
    shift = mean if normalize or unbias else np.zeros(width)
    scale = deviation if normalize else np.ones(width)
    profile = np.ones(width)
    if settings.optimizer == SECOND_ORDER:
        # The optimum is the same, and is found in well-scaled numbers; only the penalties tell
        # whether they are of normalized weights.
        profile = 1 / (deviation / scale)
        scale = deviation
        # A penalty of the bias is of that of the features as they are asked for.
        shift = mean if values.use_bias and not settings.bias_wd_mult else shift
    label_shift, label_scale = _label_moments(values, labels)
    rows = width + values.use_bias
    bias_wd = [settings.bias_wd_mult] if values.use_bias else []
    no_l1 = [0.0] if values.use_bias else []
    state: State = {
        "shift": shift,
        "scale": scale,
        "label_shift": label_shift,
        "label_scale": label_scale,
        "l2": np.append(profile**2, bias_wd)[:, None] * settings.wd,
        "l1": np.append(profile, no_l1)[:, None] * settings.l1,
        "rates": np.append(np.ones(width), [settings.bias_lr_mult] * values.use_bias)[:, None]
        * settings.rates,
        "positive": _positive(values, settings.models, labels),
        "classes": _class_weights(values, labels),
        "weights": _first_weights(values, settings, rows),
        "stale": 0,
    }
    if earlier is not None:
        state["weights"] = _earlier_weights(values, settings, state, earlier)
    state = {
        name: torch.from_numpy(np.asarray(value, dtype=np.float64)).to(run.device)
        if isinstance(value, np.ndarray) else value
        for name, value in state.items()
    }
    if settings.optimizer != SECOND_ORDER:
        settings.stepper.start(state)
    return state


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature; 1 for one that does not vary."""
    mean = features.mean(axis=0, dtype=np.float64)
    std = features.std(axis=0, dtype=np.float64)
    std[std <= np.finfo(np.float32).eps * np.abs(mean)] = 1.0
    return mean, std


def _label_moments(values: Any, labels: np.ndarray) -> tuple[float, float]:
    if values.predictor_type != REGRESSOR:
        return 0.0, 1.0
    normalize = values.normalize_label in (True, "auto")
    unbias = values.use_bias if values.unbias_label == "auto" else values.unbias_label
    mean = float(labels.mean(dtype=np.float64)) if normalize or unbias else 0.0
    deviation = float(labels.std(dtype=np.float64)) if normalize else 1.0
    return mean, deviation or 1.0


def _positive(values: Any, models: int, labels: np.ndarray) -> np.ndarray:
    wanted = values.positive_example_weight_mult
    if values.predictor_type != BINARY or wanted == 1:
        return np.ones(models)
    if isinstance(wanted, float):
        return np.full(models, wanted)
    positives = float((labels == 1).sum())
    if positives in (0, len(labels)):
        raise DataError(
            "LABELS_OF_ONE_CLASS",
            f"the first {len(labels)} labels are all {int(labels[0])}", where="train",
            expected=f"both classes among them, by which {wanted} weights them",
            remedy="shuffle the data, raise num_point_for_scaler, or give the weight as a number",
        )
    balanced = (len(labels) - positives) / positives
    if wanted == "balanced":
        return np.full(models, balanced)
    return np.resize([1.0, balanced, balanced**0.5], models)


def _class_weights(values: Any, labels: np.ndarray) -> np.ndarray:
    if values.predictor_type != MULTICLASS or not values.balance_multiclass_weights:
        return np.ones(1)
    counts = np.bincount(labels.astype(np.int64), minlength=values.num_classes)
    if not counts.all():
        raise DataError(
            "LABELS_MISSING", f"class {counts.argmin()} is not among the first {len(labels)}"
            " labels", where="train",
            expected="every class there, by which balance_multiclass_weights weights them",
            remedy="shuffle the data or raise num_point_for_scaler",
        )
    weights: np.ndarray = len(labels) / (values.num_classes * counts)
    return weights


def _first_weights(values: Any, settings: Settings, rows: int) -> np.ndarray:
    random = np.random.default_rng(0)
    shape = (rows, settings.models, settings.outputs)
    if values.init_method == "uniform":
        weights = random.uniform(-values.init_scale, values.init_scale, shape)
    else:
        weights = random.normal(0, values.init_sigma, shape)
    if values.use_bias:
        weights[-1] = values.init_bias
    return weights


def _earlier_weights(
    values: Any, settings: Settings, state: State, earlier: Any
) -> np.ndarray:
    """Those of an earlier model, as seen from the normalized features; the same in all models."""
    width = len(state["shift"])
    there = (earlier.kind, *earlier.weights.shape)
    wanted = (settings.kind, width, settings.outputs)
    if there != wanted:
        raise DataError(
            "EARLIER_MODEL_DOES_NOT_FIT",
            "the earlier model is a {} of {} features and {} outputs".format(*there),
            where="model", expected="a {} of {} features and {} outputs".format(*wanted),
        )
    weights = earlier.weights * state["scale"][:, None]
    if values.use_bias:
        bias = earlier.bias + (state["shift"] - earlier.shift) @ earlier.weights
        weights = np.vstack([weights, bias - state["label_shift"]])
    weights = weights / state["label_scale"]
    return np.repeat(weights[:, None, :], settings.models, axis=1)
