"""linear-learner on real files: against scikit-learn, its own promises, and SageMaker's forms."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from byoa.algorithms import array_state, linear_start
from byoa.algorithms.linear_learner import LinearLearner
from byoa.algorithms.linear_settings import resolve
from byoa.algorithms.streaming import MODEL
from byoa.container.contract import ChannelConfig, InputDataConfig, ResourceConfig
from byoa.container.errors import AlgorithmError, DataError, HyperparameterError
from byoa.container.metrics import Metrics

Data = tuple[np.ndarray, np.ndarray]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def cancer() -> dict[str, Data]:
    from sklearn.datasets import load_breast_cancer

    records, labels = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    records, labels = records[order].astype(np.float32), labels[order]
    return {"train": (records[:380], labels[:380]), "validation": (records[380:], labels[380:])}


@pytest.fixture(scope="session")
def diabetes() -> Data:
    from sklearn.datasets import load_diabetes

    records, labels = load_diabetes(return_X_y=True, scaled=False)
    return records.astype(np.float32), labels


@pytest.fixture(scope="session")
def rare() -> dict[str, Data]:
    """One positive in twelve, and no plane between the classes."""
    rng = np.random.default_rng(1)
    records = rng.normal(size=(4000, 6)).astype(np.float32)
    labels = (records[:, 0] + rng.normal(size=4000) > 2).astype(int)
    return {"train": (records[:2500], labels[:2500]), "validation": (records[2500:], labels[2500:])}


class After:
    def __init__(self, looks: int) -> None:
        self.left = looks

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


class StopIn:
    """Asks to stop as soon as a function of that name is at work."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self) -> bool:
        frame = sys._getframe()
        while frame.f_back is not None:
            frame = frame.f_back
            if frame.f_code.co_name == self.name:
                return True
        return False


@pytest.fixture
def fit(job: Callable[..., Any]) -> Callable[..., Any]:
    """Trains on `train` and other channels; the job, its algorithm and its loaded model."""

    def run(name: str = "ml", channels: dict[str, Data] | None = None, **values: Any) -> Any:
        trained = job(LinearLearner, name).channels(**(channels or {}))
        algorithm = trained.train(**values)
        return trained, algorithm, algorithm.load(trained.layout.model, "cpu")

    return run


def saved(job: Any) -> dict[str, Any]:
    return array_state.read(job.layout.model, MODEL)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        np.asarray(one[name]).tobytes() == np.asarray(other[name]).tobytes() for name in one
    )


def sdk_common() -> Any:
    """The SageMaker SDK's own reader and writer of recordio-protobuf."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a third version of the SDK exists
        from sagemaker.amazon import common
    return common


def standard(records: np.ndarray) -> np.ndarray:
    return (records - records.mean(0, np.float64)) / records.std(0, np.float64)


def log_loss(outputs: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(np.logaddexp(0, outputs) - labels * outputs))


# --- parity ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("wd", [1e-4, 1e-2])
def test_logistic_regression_reaches_scikit_learn_s_optimum(
    fit: Callable[..., Any], cancer: Any, wd: float
) -> None:
    from sklearn.linear_model import LogisticRegression

    records, labels = cancer["train"]
    _, algorithm, model = fit(
        channels={"train": cancer["train"]}, predictor_type="binary_classifier", wd=wd
    )
    normal = standard(records)
    peer = LogisticRegression(C=1 / (wd * len(labels)), tol=1e-10, max_iter=10_000)
    peer.fit(normal, labels)
    theirs = peer.decision_function(normal)
    ours = model.outputs(records)[:, 0].astype(np.float64)
    scaled = model.weights[:, 0] * records.std(0, np.float64)
    objective = log_loss(ours, labels) + wd / 2 * (scaled**2).sum()
    best = log_loss(theirs, labels) + wd / 2 * (peer.coef_**2).sum()
    assert objective <= best * (1 + 1e-4)
    held, held_labels = cancer["validation"]
    answer = algorithm.predict(model, held)
    assert answer["score"].dtype == np.float32
    assert (answer["predicted_label"] == held_labels).mean() > 0.95


@pytest.mark.parametrize("wd", [0.0, 0.02])
def test_least_squares_is_exact_after_one_pass(
    fit: Callable[..., Any], diabetes: Data, wd: float
) -> None:
    from sklearn.linear_model import Ridge

    records, labels = diabetes
    trained, algorithm, model = fit(
        channels={"train": diabetes}, predictor_type="regressor", wd=wd
    )
    assert len(trained.metrics("train:objective_loss")) == 2  # of the pass, of the solution
    peer = Ridge(alpha=wd * len(labels) / 2).fit(standard(records), labels)
    expected = peer.predict(standard(records))
    score = algorithm.predict(model, records)["score"]
    assert score == pytest.approx(expected, rel=1e-4)
    mse = trained.metrics("train:mse")[-1][1]
    assert mse == pytest.approx(((expected - labels) ** 2).mean(), rel=1e-5)


def test_softmax_reads_digits_as_scikit_learn_does(
    fit: Callable[..., Any], digits: Any
) -> None:
    from sklearn.linear_model import LogisticRegression

    records, labels = digits.train
    trained, algorithm, model = fit(
        channels={"train": digits.train}, predictor_type="multiclass_classifier", num_classes=10,
        wd=0.001, epochs=40, early_stopping_tolerance=1e-6,
    )
    spread = records.std(0)
    normal = (records - records.mean(0)) / np.where(spread > 0, spread, 1)
    peer = LogisticRegression(C=1 / (0.001 * len(labels)), tol=1e-8, max_iter=5000)
    theirs = peer.fit(normal, labels).predict_log_proba(normal)
    best = -theirs[np.arange(len(labels)), labels].mean() + 0.0005 * (peer.coef_**2).sum()
    answer = algorithm.predict(model, records.astype(np.float32))
    ours = -np.log(answer["score"][np.arange(len(labels)), labels]).mean()
    scaled = model.weights * np.where(spread > 0, spread, 1)[:, None]
    assert ours + 0.0005 * (scaled**2).sum() <= best * (1 + 1e-3)
    test = algorithm.predict(model, digits.test[0].astype(np.float32))
    assert (test["predicted_label"] == digits.test[1]).mean() > 0.94
    assert test["score"].sum(axis=1) == pytest.approx(np.ones(len(digits.test[1])), abs=1e-5)


def test_l1_leaves_the_weights_that_scikit_learn_s_lasso_leaves(
    fit: Callable[..., Any], diabetes: Data
) -> None:
    from sklearn.linear_model import Lasso

    records, labels = diabetes
    trained, _, model = fit(
        channels={"train": diabetes}, predictor_type="regressor", wd=0.0, l1=0.1
    )
    target = (labels - labels.mean()) / labels.std()
    peer = Lasso(alpha=0.05, tol=1e-10, max_iter=100_000).fit(standard(records), target)
    ours = model.weights[:, 0] * records.std(0, np.float64) / labels.std()
    assert ours == pytest.approx(peer.coef_, abs=2e-4)
    assert ((ours == 0) == (peer.coef_ == 0)).all()
    assert 0 < (ours == 0).sum() < len(ours)


def test_l1_of_a_classifier_reaches_scikit_learn_s_optimum(
    fit: Callable[..., Any], cancer: Any
) -> None:
    from sklearn.linear_model import LogisticRegression

    records, labels = cancer["train"]
    _, _, model = fit(
        channels={"train": cancer["train"]}, predictor_type="binary_classifier", wd=0.0, l1=0.01,
        epochs=40, early_stopping_tolerance=1e-6,
    )
    normal = standard(records)
    peer = LogisticRegression(
        solver="saga", l1_ratio=1, C=1 / (0.01 * len(labels)), tol=1e-8, max_iter=50_000
    ).fit(normal, labels)
    best = log_loss(peer.decision_function(normal), labels) + 0.01 * np.abs(peer.coef_).sum()
    scaled = model.weights[:, 0] * records.std(0, np.float64)
    ours = log_loss(model.outputs(records)[:, 0], labels) + 0.01 * np.abs(scaled).sum()
    assert ours <= best * (1 + 1e-4)


@pytest.mark.parametrize("loss", ["huber_loss", "eps_insensitive_squared_loss"])
def test_smooth_robust_losses_reach_their_optimum(
    fit: Callable[..., Any], diabetes: Data, loss: str
) -> None:
    from scipy.optimize import minimize

    records, labels = diabetes
    shape = {"huber_delta": 0.5} if loss == "huber_loss" else {"loss_insensitivity": 0.3}
    trained, _, _ = fit(
        channels={"train": diabetes}, predictor_type="regressor", loss=loss, wd=0.0, epochs=40,
        early_stopping_tolerance=1e-7, **shape,
    )
    inputs = np.column_stack([standard(records), np.ones(len(labels))])
    target = (labels - labels.mean()) / labels.std()

    def mean(weights: np.ndarray) -> float:
        error = np.abs(inputs @ weights - target)
        if loss == "huber_loss":
            return float(np.where(error < 0.5, error**2 / 2, 0.5 * (error - 0.25)).mean())
        return float((np.maximum(error - 0.3, 0) ** 2).mean())

    best = minimize(mean, np.zeros(inputs.shape[1])).fun
    assert trained.metrics("train:objective_loss")[-1][1] <= best * (1 + 1e-4)


@pytest.mark.parametrize(
    ("loss", "values", "quantile"),
    [
        ("absolute_loss", {}, 0.5),
        ("eps_insensitive_absolute_loss", {"loss_insensitivity": 0.001}, 0.5),
        ("quantile_loss", {"quantile": 0.8}, 0.8),
    ],
)
def test_losses_with_corners_divide_the_labels_as_they_should(
    fit: Callable[..., Any], diabetes: Data, loss: str, values: dict[str, float], quantile: float
) -> None:
    from sklearn.linear_model import QuantileRegressor

    records, labels = diabetes
    trained, algorithm, model = fit(
        channels={"train": diabetes}, predictor_type="regressor", loss=loss, epochs=300, wd=0.0,
        mini_batch_size=50, early_stopping_patience=300, lr_scheduler_factor=0.97, **values,
    )
    score = algorithm.predict(model, records)["score"]
    assert (labels > score).mean() == pytest.approx(1 - quantile, abs=0.04)
    peer = QuantileRegressor(quantile=quantile, alpha=0).fit(standard(records), labels)

    def pinball(predicted: np.ndarray) -> float:
        error = labels - predicted
        return float(np.maximum(quantile * error, (quantile - 1) * error).mean())

    assert pinball(score) <= pinball(peer.predict(standard(records))) * 1.02


@pytest.mark.parametrize("quantile", [0.1, 0.9])
def test_a_share_of_labels_as_large_as_the_quantile_is_below_the_prediction(
    fit: Callable[..., Any], quantile: float
) -> None:
    """Of labels 0 to 999 with no feature that tells them apart, the 0.9 quantile is about 900."""
    records = np.random.default_rng(0).normal(size=(1000, 1)).astype(np.float32)
    labels = np.random.default_rng(1).permutation(1000)
    _, algorithm, model = fit(
        channels={"train": (records, labels)}, predictor_type="regressor", loss="quantile_loss",
        quantile=quantile, epochs=100, mini_batch_size=100, wd=0.0,
    )
    score = algorithm.predict(model, records)["score"]
    assert (labels < score).mean() == pytest.approx(quantile, abs=0.03)
    assert score.mean() == pytest.approx(1000 * quantile, abs=30)


def test_hinge_loss_finds_a_plane(fit: Callable[..., Any], cancer: Any) -> None:
    from sklearn.svm import LinearSVC

    trained, algorithm, model = fit(
        channels=cancer, predictor_type="binary_classifier", loss="hinge_loss", epochs=100,
        mini_batch_size=32, num_models=1,
    )
    held, labels = cancer["validation"]
    answer = algorithm.predict(model, held)
    normal = standard(cancer["train"][0])
    peer = LinearSVC(loss="hinge", C=1, max_iter=100_000).fit(normal, cancer["train"][1])
    seen = (held - cancer["train"][0].mean(0)) / cancer["train"][0].std(0)
    assert (answer["predicted_label"] == labels).mean() >= peer.score(seen, labels) - 0.02
    assert answer["score"].min() < 0 < answer["score"].max()  # a distance, no probability


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop"])
def test_each_optimizer_comes_near_the_optimum(
    fit: Callable[..., Any], cancer: Any, optimizer: str
) -> None:
    exact, _, _ = fit(
        "exact", {"train": cancer["train"]}, predictor_type="binary_classifier", wd=0.01
    )
    steps, _, _ = fit(
        optimizer, {"train": cancer["train"]}, predictor_type="binary_classifier", wd=0.01,
        optimizer=optimizer, epochs=200, mini_batch_size=38, early_stopping_patience=200,
    )
    best = exact.metrics("train:objective_loss")[-1][1]
    assert best * 0.8 < steps.metrics("train:objective_loss")[-1][1] < best * 1.15


def test_a_sample_that_is_all_of_the_data_leaves_one_pass(
    fit: Callable[..., Any], cancer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"predictor_type": "binary_classifier"}
    trained, _, _ = fit(channels={"train": cancer["train"]}, **values)
    monkeypatch.setattr(linear_start, "_RECORDS_PER_WEIGHT", 1000)  # there are too few
    few, _, _ = fit("few", {"train": cancer["train"]}, **values)
    losses, more = (
        [value for _, value in each.metrics("train:objective_loss")] for each in (trained, few)
    )
    assert len(losses) == 2  # of the pass, and of the model that is measured afterwards
    assert len(more) > 4
    assert losses[-1] == pytest.approx(more[-1], rel=1e-4)


@pytest.mark.parametrize("one_class", [False, True])
def test_a_sample_that_misleads_does_not_keep_from_the_optimum(
    fit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, one_class: bool
) -> None:
    """The first records' labels are all 0, or the opposite of what the others' are."""
    rng = np.random.default_rng(3)
    records = rng.normal(size=(6000, 3)).astype(np.float32)
    labels = (records[:, 0] + rng.normal(size=6000) > 0).astype(int)
    labels[:400] = 0 if one_class else 1 - labels[:400]
    data = {"train": (records, labels)}
    monkeypatch.setattr(linear_start, "_RECORDS", 400)
    found, _, _ = fit("misled", data, predictor_type="binary_classifier")
    monkeypatch.setattr(linear_start, "_RECORDS_PER_WEIGHT", 10_000)
    best, _, _ = fit("drawn", data, predictor_type="binary_classifier")
    assert found.metrics("train:objective_loss")[-1][1] == pytest.approx(
        best.metrics("train:objective_loss")[-1][1], rel=1e-5
    )


def test_a_learning_rate_means_steps_as_on_sagemaker(
    fit: Callable[..., Any], cancer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    trained, _, _ = fit(
        channels=cancer, predictor_type="binary_classifier", learning_rate=0.05, num_models=1
    )
    assert "optimizer: adam (learning_rate set)" in capsys.readouterr().out
    assert saved(trained)["optimizer"] == "adam"


# --- settings that change the model ---------------------------------------------------------------


def test_penalties_are_of_normalized_weights_only_where_data_are_normalized(
    fit: Callable[..., Any], diabetes: Data
) -> None:
    from sklearn.linear_model import Ridge

    records, labels = diabetes
    _, algorithm, model = fit(
        channels={"train": diabetes}, predictor_type="regressor", wd=0.02, normalize_data=False,
        normalize_label=False,
    )
    peer = Ridge(alpha=0.01 * len(labels)).fit(records, labels)
    assert algorithm.predict(model, records)["score"] == pytest.approx(
        peer.predict(records), rel=1e-3
    )


def test_without_a_bias_the_plane_goes_through_the_origin(
    fit: Callable[..., Any], diabetes: Data
) -> None:
    from sklearn.linear_model import LinearRegression

    records, labels = diabetes
    _, algorithm, model = fit(
        channels={"train": diabetes}, predictor_type="regressor", wd=0.0, use_bias=False,
        normalize_data=False, normalize_label=False,
    )
    peer = LinearRegression(fit_intercept=False).fit(records.astype(np.float64), labels)
    score = algorithm.predict(model, records)["score"]
    assert score == pytest.approx(peer.predict(records), rel=2e-3)
    assert (model.bias == 0).all()
    assert (model.shift == 0).all()


def test_features_far_from_the_origin_lose_no_digits(fit: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    inner = rng.normal(size=(2000, 3))
    records = (inner + 3e4).astype(np.float32)
    labels = (records.astype(np.float64) - 3e4) @ [1.0, -2.0, 0.5]
    rows = "".join(
        ",".join(f"{x:.9g}" for x in [label, *row]) + "\n"
        for label, row in zip(labels, records, strict=True)
    )
    trained, algorithm, model = fit(
        channels={"train": rows}, predictor_type="regressor", wd=0.0, normalize_data=False
    )
    assert algorithm.predict(model, records)["score"] == pytest.approx(labels, abs=1e-3)


def test_the_weight_of_positives_raises_recall(fit: Callable[..., Any], rare: Any) -> None:
    """Weighting replaces no calibration: with loss_function the threshold stays where it is."""
    recalls = []
    for name, weight in (("one", 1.0), ("four", 4.0), ("balanced", "balanced")):
        trained, _, _ = fit(
            name, rare, predictor_type="binary_classifier", num_models=1,
            positive_example_weight_mult=weight,
            binary_classifier_model_selection_criteria="loss_function",
        )
        recalls.append(trained.metrics("validation:recall")[-1][1])
    assert recalls[0] < recalls[1] < recalls[2]
    negatives, positives = np.bincount(rare["train"][1])
    assert saved(trained)["positive_example_weight_mult"] == pytest.approx(negatives / positives)


def test_balanced_classes_weigh_the_same(fit: Callable[..., Any]) -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    labels = rng.choice(3, 3000, p=[0.9, 0.07, 0.03])
    records = rng.normal(size=(3000, 4)) + labels[:, None]
    trained, algorithm, model = fit(
        channels={"train": (records, labels)}, predictor_type="multiclass_classifier",
        num_classes=3, balance_multiclass_weights=True, wd=1e-3,
    )
    peer = LogisticRegression(C=1 / (1e-3 * 3000), class_weight="balanced").fit(
        standard(records), labels
    )
    ours = algorithm.predict(model, records.astype(np.float32))["predicted_label"]
    assert (ours == peer.predict(standard(records))).mean() > 0.99


# --- many models, thresholds, early ends ----------------------------------------------------------


def test_of_many_models_the_one_that_suits_the_validation_records_is_kept(
    fit: Callable[..., Any],
) -> None:
    """Few records of many features: only a strong penalty generalizes."""
    rng = np.random.default_rng(0)
    records = rng.normal(size=(3060, 50)).astype(np.float32)
    labels = records[:, 0] + rng.normal(size=3060) * 2
    channels = {"train": (records[:60], labels[:60]), "validation": (records[60:], labels[60:])}
    many, _, _ = fit("many", channels, predictor_type="regressor", num_models=16)
    chosen = saved(many)["wd"]
    errors = {}
    for wd in (1e-6, 1e-2, 0.2, 1.0):
        one, _, _ = fit(f"one-{wd}", channels, predictor_type="regressor", num_models=1, wd=wd)
        errors[wd] = one.metrics("validation:mse")[-1][1]
    assert chosen > 0.05
    assert many.metrics("validation:mse")[-1][1] <= min(errors.values()) * 1.02
    assert errors[1e-6] > 1.5 * min(errors.values())


def test_many_models_at_once_are_the_models_one_by_one(
    fit: Callable[..., Any], cancer: Any
) -> None:
    """The batched solver shares one curvature; each model still reaches its own optimum."""
    many, _, _ = fit(
        "many", cancer, predictor_type="binary_classifier", num_models=8, epochs=60,
        early_stopping_tolerance=1e-8,
        binary_classifier_model_selection_criteria="loss_function",
    )
    alone, _, model = fit(
        "alone", cancer, predictor_type="binary_classifier", num_models=1, epochs=60,
        wd=saved(many)["wd"], early_stopping_tolerance=1e-8,
    )
    assert saved(many)["weights"] == pytest.approx(model.weights, rel=0.05, abs=1e-3)
    assert many.metrics("validation:objective_loss")[-1][1] == pytest.approx(
        alone.metrics("validation:objective_loss")[-1][1], rel=5e-3
    )


def test_num_models_is_thirty_two_where_there_is_something_to_choose_by(
    job: Callable[..., Any],
) -> None:
    def models(validation: bool, **values: Any) -> int:
        hyperparameters = LinearLearner.Hyperparameters(predictor_type="regressor", **values)
        return resolve(hyperparameters, 5, validation).models

    assert (models(True), models(False), models(True, wd=0.1), models(False, num_models=7)) == (
        32, 1, 1, 7,
    )


@pytest.mark.parametrize("target", [0.6, 0.9])
def test_a_target_recall_is_met(fit: Callable[..., Any], rare: Any, target: float) -> None:
    trained, algorithm, model = fit(
        channels=rare, predictor_type="binary_classifier", target_recall=target,
        binary_classifier_model_selection_criteria="precision_at_target_recall",
    )
    records, labels = rare["validation"]
    predicted = algorithm.predict(model, records)["predicted_label"]
    recall = predicted[labels == 1].mean()
    assert target <= recall < target + 0.1
    assert trained.metrics("validation:recall")[-1][1] == pytest.approx(recall)
    assert trained.metrics("validation:precision")[-1][1] == pytest.approx(
        labels[predicted == 1].mean()
    )


def test_a_target_precision_is_met(fit: Callable[..., Any], rare: Any) -> None:
    _, algorithm, model = fit(
        channels=rare, predictor_type="binary_classifier", target_precision=0.7,
        binary_classifier_model_selection_criteria="recall_at_target_precision",
    )
    records, labels = rare["validation"]
    predicted = algorithm.predict(model, records)["predicted_label"]
    assert labels[predicted == 1].mean() >= 0.7
    assert predicted[labels == 1].mean() > 0.1


def test_the_threshold_of_f_beta_beats_the_usual_one(fit: Callable[..., Any], rare: Any) -> None:
    found = {}
    for criterion in ("f_beta", "loss_function"):
        trained, _, _ = fit(
            criterion, rare, predictor_type="binary_classifier", f_beta=2.0, num_models=1,
            binary_classifier_model_selection_criteria=criterion,
        )
        found[criterion] = trained.metrics("validation:binary_f_beta")[-1][1]
        assert (saved(trained)["threshold"] == 0) == (criterion == "loss_function")
    assert found["f_beta"] > found["loss_function"] + 0.05


def test_metrics_are_scikit_learn_s(fit: Callable[..., Any], rare: Any, digits: Any) -> None:
    from sklearn import metrics

    trained, algorithm, model = fit(channels=rare, predictor_type="binary_classifier")
    records, labels = rare["validation"]
    answer = algorithm.predict(model, records)
    predicted = answer["predicted_label"]
    expected = {
        "binary_classification_accuracy": metrics.accuracy_score(labels, predicted),
        "precision": metrics.precision_score(labels, predicted),
        "recall": metrics.recall_score(labels, predicted),
        "binary_f_beta": metrics.f1_score(labels, predicted),
        "roc_auc_score": metrics.roc_auc_score(labels, answer["score"]),
        "objective_loss": metrics.log_loss(labels, answer["score"].astype(np.float64)),
    }
    for name, value in expected.items():
        assert trained.metrics(f"validation:{name}")[-1][1] == pytest.approx(value, rel=1e-5), name
    trained, algorithm, model = fit(
        "digits", {"train": digits.train, "test": digits.test}, num_classes=10,
        predictor_type="multiclass_classifier", accuracy_top_k=2,
    )
    answer = algorithm.predict(model, digits.test[0].astype(np.float32))
    truth, predicted = digits.test[1], answer["predicted_label"]
    expected = {
        "multiclass_accuracy": metrics.accuracy_score(truth, predicted),
        "multiclass_top_k_accuracy": metrics.top_k_accuracy_score(truth, answer["score"], k=2),
        "macro_precision": metrics.precision_score(truth, predicted, average="macro"),
        "macro_recall": metrics.recall_score(truth, predicted, average="macro"),
        "macro_f_beta": metrics.f1_score(truth, predicted, average="macro"),
    }
    for name, value in expected.items():
        assert trained.metrics(f"test:{name}")[-1][1] == pytest.approx(value, rel=1e-5), name
    rank = (answer["score"] > answer["score"][np.arange(len(truth)), truth][:, None]).sum(axis=1)
    assert trained.metrics("test:dcg")[-1][1] == pytest.approx((1 / np.log2(rank + 2)).mean())


def test_every_metric_that_is_logged_is_published(
    fit: Callable[..., Any], rare: Any, digits: Any, diabetes: Data,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """TRAIN-190"""
    fit("a", rare | {"test": rare["validation"]}, predictor_type="binary_classifier")
    fit("b", {"train": digits.train, "validation": digits.test},
        predictor_type="multiclass_classifier", num_classes=10, num_models=2)
    fit("c", {"train": diabetes, "test": diabetes}, predictor_type="regressor")
    logged = {
        line.partition("=")[0] for line in capsys.readouterr().out.splitlines() if "; step=" in line
    }
    assert logged <= set(LinearLearner.metrics)
    assert len(logged) == 23
    assert len(Metrics.definitions(LinearLearner.metrics)) == len(set(LinearLearner.metrics))


def test_training_ends_early_where_validation_no_longer_improves(
    fit: Callable[..., Any], cancer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    trained, algorithm, model = fit(
        channels=cancer, predictor_type="binary_classifier", optimizer="adam", epochs=500,
        mini_batch_size=64, num_models=1, early_stopping_patience=4,
        binary_classifier_model_selection_criteria="loss_function",
    )
    losses = [value for _, value in trained.metrics("validation:objective_loss")]
    assert "early stopping" in capsys.readouterr().out
    assert len(losses) < 300
    held, labels = cancer["validation"]
    assert log_loss(model.outputs(held)[:, 0], labels) == pytest.approx(min(losses), rel=1e-4)


# --- streaming, resume, hosts ---------------------------------------------------------------------

SETTINGS: dict[str, dict[str, Any]] = {
    "second-order": {"num_models": 3, "epochs": 6, "early_stopping_tolerance": 1e-9},
    "sgd": {"optimizer": "sgd", "momentum": 0.9, "epochs": 4, "mini_batch_size": 50},
    "adam": {"optimizer": "adam", "num_models": 3, "epochs": 4, "mini_batch_size": 50},
}


@pytest.mark.parametrize("method", SETTINGS)
@pytest.mark.parametrize("looks", [2, 7, 17])
def test_an_interrupted_training_ends_bit_for_bit_as_an_uninterrupted_one(
    job: Callable[..., Any], rare: Any, monkeypatch: pytest.MonkeyPatch, method: str, looks: int
) -> None:
    """TRAIN-151, TRAIN-174"""
    monkeypatch.setattr("byoa.algorithms.linear_learner._BLOCK_RECORDS", 500)
    values = {"predictor_type": "binary_classifier", "mini_batch_size": 500} | SETTINGS[method]
    whole = job(LinearLearner, "whole").channels(**rare).checkpoints()
    whole.train(**values)
    broken = job(LinearLearner, "broken").channels(**rare).checkpoints()
    broken.train(**values, stopping=After(looks))
    assert not same(saved(broken), saved(whole))
    broken.train(**values)
    assert same(saved(broken), saved(whole))
    for name in ("train:objective_loss", "validation:binary_classification_accuracy"):
        assert broken.metrics(name) == whole.metrics(name)


def test_a_training_that_is_stopped_in_its_first_pass_says_what_that_part_says(
    job: Callable[..., Any], rare: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("byoa.algorithms.linear_learner._BLOCK_RECORDS", 500)
    stopped = job(LinearLearner).channels(train=rare["train"])
    algorithm = stopped.train(
        predictor_type="binary_classifier", mini_batch_size=500, stopping=After(3)
    )
    model = algorithm.load(stopped.layout.model, "cpu")
    records, labels = rare["validation"]
    assert (algorithm.predict(model, records)["predicted_label"] == labels).mean() > 0.9


@pytest.mark.parametrize("method", SETTINGS)
def test_a_training_that_is_stopped_in_its_first_measurement_saves_a_model(
    job: Callable[..., Any], rare: Any, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """TRAIN-151"""
    stopped = job(LinearLearner).channels(**rare)
    look = StopIn("measure")
    algorithm = stopped.train(
        predictor_type="binary_classifier", stopping=look, **SETTINGS[method]
    )
    assert "stopped in measuring validation after pass 1" in capsys.readouterr().out
    model = algorithm.load(stopped.layout.model, "cpu")
    records, labels = rare["validation"]
    if method == "second-order":
        assert (algorithm.predict(model, records)["predicted_label"] == labels).mean() > 0.9
    assert np.isfinite(model.weights).all()
    assert stopped.metrics("validation:objective_loss") == []


@pytest.mark.parametrize("method", SETTINGS)
def test_a_pipe_gives_the_model_that_files_give(
    job: Callable[..., Any], rare: Any, method: str
) -> None:
    values = {"predictor_type": "binary_classifier"} | SETTINGS[method]
    files = job(LinearLearner, "files").channels(**rare)
    files.train(**values)
    pipe = job(LinearLearner, "pipe").channels(**rare).piped("train", "validation")
    pipe.train(**values)
    assert same(saved(pipe), saved(files))


@pytest.mark.parametrize("kind", ["regressor", "binary_classifier", "multiclass_classifier"])
def test_two_hosts_find_the_model_of_one(
    job: Callable[..., Any], group: Callable[[int], Any], rare: Any, kind: str
) -> None:
    """TRAIN-132, TRAIN-194. The first host's records scale the features, so that penalties of
    normalized weights differ a little: there are next to none here."""
    data = dict(rare)
    values: dict[str, Any] = {
        "predictor_type": kind, "num_models": 1, "wd": 1e-6, "epochs": 60,
        "early_stopping_tolerance": 1e-8, "normalize_label": False,
    }
    if kind != "binary_classifier":
        for name, (records, _) in rare.items():
            numbers = np.abs(records[:, 0] + records[:, 1] / 2 + records[:, 2] ** 2)
            classes = kind == "multiclass_classifier"
            data[name] = (records, np.minimum(numbers // 1, 2) if classes else numbers)
            values["num_classes"] = 3 if classes else 1
    names = ("algo-1", "algo-2")
    pair = []
    for name in names:
        one = job(LinearLearner, name).channels(**data)
        ResourceConfig(current_host=name, hosts=names).write(one.layout)
        pair.append(one)
    group(2).each(lambda rank, peers: pair[rank].train(peers=peers, **values) and None)
    alone = job(LinearLearner, "alone").channels(**data)
    alone.train(**values)
    assert list(pair[1].layout.model.iterdir()) == []
    two, one = saved(pair[0]), saved(alone)
    outputs = [
        (data["train"][0] - each["shift"]) @ each["weights"] + each["bias"] for each in (two, one)
    ]
    if kind == "multiclass_classifier":  # only the outputs' differences have a meaning
        outputs = [each - each[:, :1] for each in outputs]
    spread = np.abs(outputs[1]).max()
    assert np.abs(outputs[0] - outputs[1]).max() < 0.01 * spread
    loss = "validation:objective_loss"
    assert pair[0].metrics(loss)[-1][1] == pytest.approx(alone.metrics(loss)[-1][1], rel=1e-3)


def test_two_hosts_average_their_steps(
    job: Callable[..., Any], group: Callable[[int], Any], rare: Any
) -> None:
    names = ("algo-1", "algo-2")
    pair = []
    for name in names:
        one = job(LinearLearner, name).channels(**rare)
        ResourceConfig(current_host=name, hosts=names).write(one.layout)
        pair.append(one)
    values = {"predictor_type": "binary_classifier", "optimizer": "adam", "epochs": 20,
              "mini_batch_size": 50, "num_models": 1}
    group(2).each(lambda rank, peers: pair[rank].train(peers=peers, **values) and None)
    alone = job(LinearLearner, "alone").channels(**rare)
    alone.train(**values)
    name = "validation:roc_auc_score"
    assert pair[0].metrics(name)[-1][1] == pytest.approx(alone.metrics(name)[-1][1], abs=0.02)


def test_training_goes_on_from_an_earlier_model(job: Callable[..., Any], cancer: Any) -> None:
    values = {"predictor_type": "binary_classifier", "optimizer": "adam", "num_models": 1,
              "mini_batch_size": 38, "epochs": 30, "early_stopping_patience": 30}
    first = job(LinearLearner, "first").channels(train=cancer["train"])
    first.train(**values)
    second = job(LinearLearner, "second").channels(train=cancer["train"])
    config = InputDataConfig.read(second.layout).channels
    InputDataConfig(config | {"model": ChannelConfig()}).write(second.layout)
    first.layout.model.rename(second.layout.channel("model"))
    second.train(**values)
    before = [value for _, value in first.metrics("train:objective_loss")]
    after = [value for _, value in second.metrics("train:objective_loss")]
    assert after[0] == pytest.approx(before[-1], rel=0.15)
    assert after[-1] < before[-1]
    with pytest.raises(DataError) as caught:
        second.channels(train=(cancer["train"][0][:, 1:], cancer["train"][1]))
        InputDataConfig(config | {"model": ChannelConfig()}).write(second.layout)
        second.train(**values)
    assert caught.value.code == "EARLIER_MODEL_DOES_NOT_FIT"


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"predictor_type": "regressor", "loss": "logistic"}, "loss = logistic is none of a regr"),
        ({"predictor_type": "multiclass_classifier"}, "num_classes is missing"),
        ({"predictor_type": "regressor", "feature_dim": 9}, "feature_dim = 9: the records have 6"),
        ({"predictor_type": "regressor", "optimizer": "adam", "momentum": 0.9}, "momentum = 0.9"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    fit: Callable[..., Any], rare: Any, values: dict[str, Any], said: str
) -> None:
    with pytest.raises(HyperparameterError, match=said):
        fit(channels=rare, **values)


WITHOUT_EFFECT: list[tuple[str, str, Any, str]] = [
    # A hyperparameter, what it is given with, its value, and what it would need.
    ("num_classes", "regressor", 4, "predictor_type=multiclass_classifier"),
    ("num_classes", "binary_classifier", 4, "predictor_type=multiclass_classifier"),
    ("accuracy_top_k", "binary_classifier", 2, "predictor_type=multiclass_classifier"),
    ("balance_multiclass_weights", "binary_classifier", True, "predictor_type=multiclass_cl"),
    ("positive_example_weight_mult", "regressor", 2.0, "predictor_type=binary_classifier"),
    ("positive_example_weight_mult", "regressor", "auto", "predictor_type=binary_classifier"),
    ("binary_classifier_model_selection_criteria", "regressor", "f_beta", "predictor_type=binary"),
    ("num_calibration_samples", "regressor", 10, "predictor_type=binary_classifier"),
    ("f_beta", "regressor", 2.0, "predictor_type=binary_classifier or multiclass_classifier"),
    ("target_recall", "binary_classifier", 0.5, "precision_at_target_recall"),
    ("target_precision", "binary_classifier", 0.5, "recall_at_target_precision"),
    ("margin", "binary_classifier", 2.0, "loss=hinge_loss"),
    ("quantile", "regressor", 0.9, "loss=quantile_loss"),
    ("loss_insensitivity", "regressor", 0.1, "loss=eps_insensitive_squared_loss or eps_ins"),
    ("huber_delta", "regressor", 2.0, "loss=huber_loss"),
    ("momentum", "regressor optimizer=rmsprop", 0.9, "optimizer=sgd"),
    ("beta_1", "regressor optimizer=sgd", 0.8, "optimizer=adam"),
    ("beta_2", "regressor momentum=0.5", 0.8, "optimizer=adam"),
    ("lr_scheduler_step", "regressor use_lr_scheduler=false", 5, "use_lr_scheduler=true"),
    ("lr_scheduler_factor", "regressor use_lr_scheduler=false", 0.5, "use_lr_scheduler=true"),
    ("lr_scheduler_minimum_lr", "regressor use_lr_scheduler=false", 0.1, "use_lr_scheduler=true"),
    ("normalize_label", "binary_classifier", True, "predictor_type=regressor"),
    ("unbias_label", "binary_classifier", True, "predictor_type=regressor"),
    ("unbias_label", "regressor", False, "normalize_label=false"),
    ("unbias_data", "regressor", False, "normalize_data=false"),
    (
        "num_point_for_scaler",
        "binary_classifier optimizer=sgd normalize_data=false unbias_data=false", 50,
        "something to be normalized",
    ),
    ("init_bias", "regressor use_bias=false", 1.0, "use_bias=true"),
    ("bias_lr_mult", "regressor use_bias=false", 2.0, "use_bias=true"),
    ("bias_wd_mult", "regressor use_bias=false", 2.0, "use_bias=true"),
    ("init_scale", "regressor init_method=normal", 1.0, "init_method=uniform"),
    ("init_sigma", "regressor", 1.0, "init_method=normal"),
]


@pytest.mark.parametrize(("name", "beside", "value", "needs"), WITHOUT_EFFECT)
def test_what_would_have_no_effect_is_refused(
    name: str, beside: str, value: Any, needs: str
) -> None:
    kind, *rest = beside.split()
    raw = {"predictor_type": kind} | dict(each.split("=") for each in rest)
    assert resolve(LinearLearner.Hyperparameters.parse(raw), 5, False)
    raw[name] = str(value).lower()
    with pytest.raises(HyperparameterError) as caught:
        resolve(LinearLearner.Hyperparameters.parse(raw), 5, False)
    assert f"{name} = {raw[name]} has no effect here, it needs" in str(caught.value)
    assert needs in str(caught.value)


def test_all_that_would_have_no_effect_is_named_at_once() -> None:
    values = LinearLearner.Hyperparameters(
        predictor_type="regressor", loss="hinge_loss", quantile=0.9, num_classes=7, momentum=0.9,
        beta_1=0.8,
    )
    with pytest.raises(HyperparameterError) as caught:
        resolve(values, 5, False)
    for said in ("loss = hinge_loss", "quantile = 0.9", "num_classes = 7", "beta_1 = 0.8"):
        assert said in str(caught.value)
    assert "momentum" not in str(caught.value)  # by which `auto` is sgd
    assert caught.value.remedy == "leave out what has no effect, or set what it needs"


@pytest.mark.parametrize("name", ["init_method", "init_scale", "init_bias"])
def test_first_weights_are_refused_where_an_earlier_model_gives_them(name: str) -> None:
    given = {"init_method": "normal", "init_scale": 0.5, "init_bias": 1.0}[name]
    values = LinearLearner.Hyperparameters(predictor_type="regressor", **{name: given})
    assert resolve(values, 5, False)
    with pytest.raises(HyperparameterError, match=f"{name} = .* without the channel model"):
        resolve(values, 5, False, earlier=True)


def test_defaults_that_are_given_and_wishes_that_are_met_anyway_pass() -> None:
    """The SageMaker SDK sends some hyperparameters whatever they are with."""
    for values in (
        {"quantile": 0.5, "num_classes": 1, "mini_batch_size": 200, "feature_dim": 5},
        {"unbias_data": True, "unbias_label": True, "normalize_label": True},
        {"normalize_label": False, "unbias_label": False},
        {"predictor_type": "binary_classifier", "normalize_label": False, "unbias_label": False},
    ):
        resolve(LinearLearner.Hyperparameters(**{"predictor_type": "regressor"} | values), 5, True)


def test_a_learning_rate_that_does_not_fall_is_one_of_steps(
    capsys: pytest.CaptureFixture[str],
) -> None:
    values = LinearLearner.Hyperparameters(predictor_type="regressor", use_lr_scheduler=False)
    assert resolve(values, 5, False).optimizer == "adam"
    assert "optimizer: adam (use_lr_scheduler set)" in capsys.readouterr().out


def test_a_wrong_label_is_named_by_record(fit: Callable[..., Any]) -> None:
    rows = "".join(f"{n % 2},{n},1\n" for n in range(20))
    with pytest.raises(DataError) as caught:
        fit(channels={"train": rows + "2,1,1\n"}, predictor_type="binary_classifier")
    assert (caught.value.code, caught.value.where) == ("LABEL_INVALID", "train record 21")
    assert caught.value.expected == "0 or 1"
    with pytest.raises(DataError, match="label 0.5 is no class"):
        fit("other", {"train": "1,2\n0.5,3\n"}, predictor_type="multiclass_classifier",
            num_classes=3)


def test_balanced_weights_need_both_classes_in_the_sample(fit: Callable[..., Any]) -> None:
    rows = "".join(f"0,{n}\n" for n in range(50)) + "1,99\n"
    with pytest.raises(DataError) as caught:
        fit(channels={"train": rows}, predictor_type="binary_classifier", num_point_for_scaler=50,
            positive_example_weight_mult="balanced")
    assert caught.value.code == "LABELS_OF_ONE_CLASS"


def test_a_training_that_diverges_says_what_to_do(fit: Callable[..., Any], diabetes: Data) -> None:
    with pytest.raises(AlgorithmError) as caught:
        fit(channels={"train": diabetes}, predictor_type="regressor", optimizer="sgd",
            learning_rate=1e6, mini_batch_size=10, epochs=50)
    assert caught.value.code == "TRAINING_DIVERGED"


# --- as SageMaker runs it -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, cancer: Any) -> Iterator[str]:
    """A spawned `byoa train`, then the address of a spawned `byoa serve` of its model."""
    import socket
    import time

    import requests

    folder = tmp_path_factory.mktemp("linear")
    records, labels = cancer["train"]
    (folder / "train.csv").write_text("".join(
        ",".join(f"{x:.9g}" for x in [label, *row]) + "\n"
        for label, row in zip(labels, records, strict=True)
    ))
    command = [sys.executable, "-m", "byoa.local.cli"]
    trained = subprocess.run(
        [*command, "train", "linear-learner", "--channel", f"train={folder / 'train.csv'}",
         "-p", "predictor_type=binary_classifier", "-p", "mini_batch_size=100", "-p", "wd=0.001",
         "--model", str(folder / "model")],
        capture_output=True, text=True, timeout=120,
    )
    assert trained.returncode == 0, trained.stdout + trained.stderr
    manifest = json.loads((folder / "model" / "byoa.json").read_text())
    assert manifest["input"]["features"] == 30
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with (folder / "serve.log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "serve", str(folder / "model"), "--port", str(port)],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 60
        while True:
            try:
                if requests.get(f"{address}/ping", timeout=5).ok:
                    break
            except requests.ConnectionError:
                pass
            assert time.monotonic() < end, (folder / "serve.log").read_text()
            time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait(60)


def test_the_four_forms_of_an_answer(served: str, cancer: Any) -> None:
    """SageMaker's response formats of linear-learner."""
    import requests

    records, labels = cancer["validation"]
    body = "".join(",".join(f"{x:.9g}" for x in row) + "\n" for row in records)

    def ask(accept: str) -> requests.Response:
        answer = requests.post(
            f"{served}/invocations", data=body, timeout=30,
            headers={"Content-Type": "text/csv", "Accept": accept},
        )
        assert answer.status_code == 200, answer.text
        return answer

    whole = ask("application/json").json()
    assert whole.keys() == {"predictions"}
    first = whole["predictions"][0]
    assert list(first) == ["score", "predicted_label"]
    assert isinstance(first["predicted_label"], int)
    assert 0 <= first["score"] <= 1
    right = [each["predicted_label"] for each in whole["predictions"]] == labels
    assert np.mean(right) > 0.95
    lines = [json.loads(line) for line in ask("application/jsonlines").text.splitlines()]
    assert lines == whole["predictions"]
    rows = [line.split(",") for line in ask("text/csv").text.splitlines()]
    assert [[float(a), int(b)] for a, b in rows] == [list(each.values()) for each in lines]
    answers = sdk_common().read_records(io.BytesIO(ask("application/x-recordio-protobuf").content))
    assert [each.label["score"].float32_tensor.values[0] for each in answers] == pytest.approx(
        [each["score"] for each in lines]
    )
    assert [each.label["predicted_label"].float32_tensor.values[0] for each in answers] == [
        each["predicted_label"] for each in lines
    ]


def test_recordio_trains_the_model_that_csv_trains(
    job: Callable[..., Any], rare: Any, tmp_path: Path
) -> None:
    """TRAIN-122, TRAIN-124: what the SageMaker SDK writes."""
    csv = job(LinearLearner, "csv").channels(**rare)
    values = {"predictor_type": "binary_classifier", "num_models": 1}
    csv.train(**values)
    recordio = job(LinearLearner, "recordio")
    for name, (records, labels) in rare.items():
        buffer = io.BytesIO()
        # CSV has six digits here, so both have.
        rounded = np.array([[float(f"{x:g}") for x in row] for row in records], np.float32)
        sdk_common().write_numpy_to_dense_tensor(buffer, rounded, labels.astype(np.float32))
        recordio.layout.channel(name).mkdir(parents=True)
        (recordio.layout.channel(name) / "part.pbr").write_bytes(buffer.getvalue())
    InputDataConfig(
        {name: ChannelConfig(content_type="application/x-recordio-protobuf") for name in rare}
    ).write(recordio.layout)
    recordio.train(**values)
    assert same(saved(recordio), saved(csv))


def test_serving_needs_no_torch(job: Callable[..., Any], rare: Any) -> None:
    trained = job(LinearLearner).channels(**rare)
    trained.train(predictor_type="binary_classifier", num_models=1)
    program = f"""
import sys
from pathlib import Path
import numpy as np
from byoa.algorithms.registry import find
kind = find("linear-learner")
algorithm = kind(kind.Hyperparameters(predictor_type="binary_classifier"))
model = algorithm.load(Path({str(trained.layout.model)!r}), "cpu")
print(algorithm.predict(model, np.zeros((2, 6), np.float32))["predicted_label"].tolist(),
      "torch" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[0, 0] False\n"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_the_same_model(job: Callable[..., Any], rare: Any) -> None:
    results = []
    for device in ("cpu", "cuda"):
        trained = job(LinearLearner, device).channels(**rare)
        trained.device = device
        trained.train(predictor_type="binary_classifier", num_models=4)
        results.append(saved(trained)["weights"])
    assert results[1] == pytest.approx(results[0], rel=1e-3, abs=1e-4)
