"""linear-learner: linear regression, binary and multiclass classification, many models in one pass.

SageMaker's names, defaults, channels and answers. Channels: `train`, optionally `validation`, by
which models and thresholds are chosen, `test`, and `model`, an earlier model to start from.

A model's objective is its mean loss + wd/2·|w|² + l1·|w|₁ of the normalized features' weights.
With optimizer=auto and a smooth loss it is minimized by a second-order method (`linear_solver`);
sgd, adam and rmsprop take their steps (`linear_steps`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from byoa.algorithms import Run, StreamingAlgorithm, array_state, param
from byoa.algorithms.array_state import State
from byoa.algorithms.streaming import MODEL, Origin
from byoa.container.errors import AlgorithmError
from byoa.container.formats.base import Batch
from byoa.container.formats.checks import require_width

if TYPE_CHECKING:
    from byoa.algorithms.linear_training import Prepared, Trainer

_SMALL = 1e-10  # for ranges without zero
_BLOCK_RECORDS = 8192  # a batch of the second-order solver: large products, yet a few megabytes
_CHANNELS = ("train", "validation", "test")


class LinearLearner(StreamingAlgorithm):
    """Linear models by SageMaker's hyperparameters."""

    measures_train = True
    metrics: ClassVar[tuple[str, ...]] = (
        "train:objective_loss",
        *(
            f"{channel}:{name}"
            for channel in _CHANNELS
            for name in (
                "binary_classification_accuracy", "precision", "recall", "binary_f_beta",
                "roc_auc_score", "multiclass_accuracy", "multiclass_top_k_accuracy", "dcg",
                "macro_precision", "macro_recall", "macro_f_beta", "mse", "absolute_loss",
            )
        ),
        "validation:objective_loss",
        "test:objective_loss",
    )

    class Hyperparameters(StreamingAlgorithm.Hyperparameters):
        predictor_type: Literal["regressor", "binary_classifier", "multiclass_classifier"] = param(
            doc="what the label is: a number, 0 or 1, or 0 to num_classes - 1"
        )
        num_classes: int = param(
            1, doc="of a multiclass_classifier, 3 or more", min=1, max=1_000_000
        )
        feature_dim: Literal["auto"] | int = param(
            "auto", doc="columns of a record, checked against the data", min=1
        )
        epochs: int = param(15, doc="passes over the data, at most", min=1)
        mini_batch_size: int = param(
            1000,
            doc="records a step of sgd, adam and rmsprop; elsewhere a batch is a multiple of it",
            min=1, max=10_000_000,
        )
        loss: Literal[
            "auto", "logistic", "hinge_loss", "softmax_loss", "squared_loss", "absolute_loss",
            "eps_insensitive_squared_loss", "eps_insensitive_absolute_loss", "quantile_loss",
            "huber_loss",
        ] = param("auto", doc="auto: squared_loss, logistic or softmax_loss by predictor_type")
        optimizer: Literal["auto", "sgd", "adam", "rmsprop"] = param(
            "auto",
            doc="auto: a second-order method to the optimum for a smooth loss and up to 3000"
            " features, else adam; adam, too, where a learning rate, schedule or beta is set, sgd"
            " where momentum is",
        )
        learning_rate: Literal["auto"] | float = param(
            "auto", doc="auto: 0.02 with adam, 0.1 with sgd, 0.01 with rmsprop", min=_SMALL
        )
        wd: Literal["auto"] | float = param(
            "auto", doc="L2 penalty; auto: 0.0001, and all of 1e-7 to 1 with several models",
            min=0,
        )
        l1: Literal["auto"] | float = param("auto", doc="L1 penalty; auto: 0", min=0)
        num_models: Literal["auto"] | int = param(
            "auto",
            doc="models trained at once: the first as asked for, the others close to it; auto: 32"
            " to choose wd by a validation channel, else 1",
            min=1, max=1024,
        )
        use_bias: bool = param(True, doc="whether a model has an intercept")
        normalize_data: Literal["auto"] | bool = param(
            True, doc="shift and scale each feature to mean 0 and standard deviation 1"
        )
        normalize_label: Literal["auto"] | bool = param(
            "auto", doc="the same of the label; auto: in regression, where alone it has a meaning"
        )
        unbias_data: Literal["auto"] | bool = param(
            "auto", doc="shift each feature to mean 0; auto: with use_bias"
        )
        unbias_label: Literal["auto"] | bool = param(
            "auto", doc="shift the label to mean 0, in regression; auto: with use_bias"
        )
        num_point_for_scaler: int = param(
            10_000, doc="first records, from which means, deviations and class weights are", min=1
        )
        positive_example_weight_mult: Literal["balanced", "auto"] | float = param(
            1.0,
            doc="weight of label 1 in a binary_classifier; balanced: as much as label 0 in all;"
            " auto: several, chosen as num_models are",
            min=_SMALL,
        )
        balance_multiclass_weights: bool = param(
            False, doc="give every class the same weight in the loss"
        )
        binary_classifier_model_selection_criteria: Literal[
            "accuracy", "f_beta", "precision_at_target_recall", "recall_at_target_precision",
            "loss_function",
        ] = param(
            "accuracy",
            doc="what the threshold and the best of the models are chosen by; with loss_function"
            " the threshold is the usual one",
        )
        target_recall: float = param(
            0.8, doc="for precision_at_target_recall", min=_SMALL, max=1
        )
        target_precision: float = param(
            0.8, doc="for recall_at_target_precision", min=_SMALL, max=1
        )
        f_beta: float = param(1.0, doc="beta of F scores", min=_SMALL)
        accuracy_top_k: int = param(3, doc="k of multiclass_top_k_accuracy", min=1)
        num_calibration_samples: Literal["auto"] | int = param(
            "auto",
            doc="records of a host by which a binary_classifier's threshold is chosen; auto:"
            " 10,000,000 over the number of models",
            min=1,
        )
        early_stopping_patience: int = param(
            3, doc="passes without an improvement after which training ends", min=1
        )
        early_stopping_tolerance: float = param(
            0.001, doc="share of the best value that counts as an improvement", min=_SMALL
        )
        margin: float = param(1.0, doc="of hinge_loss", min=_SMALL)
        quantile: float = param(
            0.5, doc="of quantile_loss: share of labels below the prediction", min=_SMALL,
            max=1 - _SMALL,
        )
        loss_insensitivity: float = param(
            0.01, doc="error up to which eps_insensitive losses are 0", min=_SMALL
        )
        huber_delta: float = param(
            1.0, doc="error from which huber_loss is linear", min=_SMALL
        )
        init_method: Literal["uniform", "normal"] = param("uniform", doc="of the first weights")
        init_scale: float = param(0.07, doc="bounds of uniform first weights", min=_SMALL)
        init_sigma: float = param(
            0.01, doc="standard deviation of normal first weights", min=_SMALL
        )
        init_bias: float = param(0.0, doc="the first intercept")
        momentum: Literal["auto"] | float = param("auto", doc="of sgd; auto: 0", min=0, max=1)
        beta_1: Literal["auto"] | float = param(
            "auto", doc="decay of adam's mean of gradients; auto: 0.9", min=0, max=1
        )
        beta_2: Literal["auto"] | float = param(
            "auto", doc="decay of adam's mean of squares; auto: 0.999", min=0, max=1
        )
        bias_lr_mult: Literal["auto"] | float = param(
            "auto", doc="learning rate of the intercept over that of the weights; auto: 1",
            min=_SMALL,
        )
        bias_wd_mult: Literal["auto"] | float = param(
            "auto", doc="penalty of the intercept over that of the weights; auto: 0", min=0
        )
        use_lr_scheduler: bool = param(True, doc="whether the learning rate falls")
        lr_scheduler_step: Literal["auto"] | int = param(
            "auto", doc="steps after each of which it does; auto: 100", min=1
        )
        lr_scheduler_factor: Literal["auto"] | float = param(
            "auto", doc="what it is multiplied by; auto: 0.99", min=_SMALL, max=1
        )
        lr_scheduler_minimum_lr: Literal["auto"] | float = param(
            "auto", doc="below which it never falls; auto: 1e-05", min=_SMALL
        )

    hyperparameters: Hyperparameters
    _trainer: Trainer | None = None

    # --- training: what needs torch is in linear_training ---------------------------------------

    def train(self, run: Run) -> None:
        try:
            import torch  # noqa: F401
        except ModuleNotFoundError as error:
            raise AlgorithmError(
                "ALGORITHM_DEPENDENCY_MISSING",
                "the training of linear-learner needs torch, which is not installed",
                remedy="pip install 'byoa[torch]'",
            ) from error
        self._trainer = None
        super().train(run)

    @property
    def batch_size(self) -> int:
        values = self.hyperparameters
        if values.optimizer != "auto":
            return values.mini_batch_size
        # Where `auto` comes to steps, a batch is taken in several.
        return values.mini_batch_size * max(1, _BLOCK_RECORDS // values.mini_batch_size)

    @property
    def sample_size(self) -> int:
        return self.hyperparameters.num_point_for_scaler

    def init(self, sample: Batch, earlier: Model | None) -> State:
        from byoa.algorithms.linear_state import initial_state

        state = initial_state(self.hyperparameters, self.run, sample, earlier)
        if earlier is None:
            self._of(state).start(state, sample)
        return state

    def restore(self, state: State) -> State:
        import torch

        return {
            name: torch.from_numpy(np.ascontiguousarray(value)).to(self.run.device)
            if isinstance(value, np.ndarray) else value
            for name, value in state.items()
        }

    def prepare(self, state: State, batch: Batch, origin: Origin) -> Prepared:
        return self._of(state).prepare(state, batch, origin)

    def begin(self, state: State, lead: bool) -> None:
        self._of(state).begin(state)

    def update(self, state: State, batch: Prepared) -> None:
        self._of(state).update(state, batch)

    def merge(self, state: State, other: State) -> None:
        self._of(state).merge(state, other)

    def end(self, state: State) -> None:
        self._of(state).end(state)

    def measure(self, state: State, batches: Iterable[Prepared], channel: str) -> State:
        return self._of(state).measure(state, batches, channel)

    def score(self, state: State, parts: Sequence[State], channel: str) -> Mapping[str, float]:
        return self._of(state).score(state, parts, channel)

    def go_on(self, state: State, scores: Mapping[str, float]) -> bool:
        return self._of(state).go_on(state, scores, self.epoch)

    def finalize(self, state: State) -> Mapping[str, Any]:
        return self._of(state).model(state)

    def _of(self, state: State) -> Trainer:
        if self._trainer is None:
            from byoa.algorithms.linear_training import Trainer

            self._trainer = Trainer(self.hyperparameters, self.run, state)
        return self._trainer

    # --- inference: numpy alone -----------------------------------------------------------------

    def load(self, model_dir: Path, device: str) -> Model:
        saved = array_state.read(model_dir, MODEL)
        try:
            return Model(
                kind=saved["predictor_type"], loss=saved["loss"], threshold=saved["threshold"],
                weights=saved["weights"], bias=saved["bias"], shift=saved["shift"],
            )
        except KeyError as error:
            raise AlgorithmError(
                "MODEL_UNREADABLE", f"the model has no {error}", where=str(model_dir),
                expected=f"{MODEL}.npz and {MODEL}.json as linear-learner saved them",
            ) from None

    def predict(self, model: Model, records: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """`score` of each record, and `predicted_label` of a classifier: the number of a regressor,
        the probability of label 1 (the distance from the plane with hinge_loss), or that of each
        class (n, classes)."""
        require_width(records, len(model.shift))
        outputs = model.outputs(records)
        if model.kind == "regressor":
            return {"score": outputs[:, 0]}
        if model.kind == "binary_classifier":
            score: NDArray[Any] = outputs[:, 0]
            labels = (score >= np.float32(model.threshold)).astype(np.int64)
            if model.loss == "logistic":
                score = np.exp(-np.logaddexp(np.float32(0), -score))
            return {"score": score, "predicted_label": labels}
        outputs -= outputs.max(axis=1, keepdims=True)
        powers = np.exp(outputs)
        score = powers / powers.sum(axis=1, keepdims=True)
        return {"score": score, "predicted_label": outputs.argmax(axis=1)}


@dataclass(frozen=True)
class Model:
    """A trained model: outputs are (x - shift)·weights + bias, in the label's own units."""

    kind: str
    loss: str
    threshold: float  # of the output, from which the label is 1
    weights: NDArray[np.float64]  # (features, outputs)
    bias: NDArray[np.float64]  # (outputs,)
    shift: NDArray[np.float64]  # (features,)

    def __post_init__(self) -> None:
        single = {
            name: np.ascontiguousarray(getattr(self, name), dtype=np.float32)
            for name in ("weights", "bias", "shift")
        }
        object.__setattr__(self, "_single", single)

    def outputs(self, records: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, outputs), in float32."""
        single: dict[str, NDArray[np.float32]] = vars(self)["_single"]
        if not len(records):
            return np.empty((0, len(self.bias)), dtype=np.float32)
        inner: Any = records - single["shift"]
        product: NDArray[np.float32] = inner @ single["weights"]
        product += single["bias"]
        return product
