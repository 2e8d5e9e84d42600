"""mlp-classifier on real files: accuracy, reproducibility, resume, stopping, refusals."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from byoa.algorithms.mlp_classifier import DESCRIPTION, WEIGHTS, MLPClassifier
from byoa.container.errors import AlgorithmError, DataError

SMALL: dict[str, Any] = {"hidden_units": [16], "epochs": 4, "mini_batch_size": 64}


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def new(job: Callable[..., Any], digits: Any) -> Callable[..., Any]:
    """A job on digits with both channels, by name."""
    return lambda name="ml": job(MLPClassifier, name).channels(
        train=digits.train, validation=digits.validation
    )


def weights(job: Any) -> bytes:
    return (job.layout.model / WEIGHTS).read_bytes()


def accuracy(job: Any, data: tuple[np.ndarray, np.ndarray]) -> float:
    algorithm = MLPClassifier(MLPClassifier.Hyperparameters())
    model = algorithm.load(job.layout.model, "cpu")
    predicted = algorithm.predict(model, data[0].astype(np.float32))["predicted_label"]
    return float((predicted == data[1]).mean())


class After:
    """Asks to stop at the n-th look, as SIGTERM does in the middle of training."""

    def __init__(self, looks: int) -> None:
        self.left = looks

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def test_defaults_read_handwritten_digits(new: Callable[..., Any], digits: Any) -> None:
    trained = new()
    trained.train()
    assert accuracy(trained, digits.test) >= 0.97
    losses = [value for _, value in trained.metrics("train:loss")]
    assert losses[-1] < losses[0] / 2


def test_a_prediction_is_a_label_and_a_probability_for_each_class(
    new: Callable[..., Any], digits: Any
) -> None:
    trained = new()
    algorithm = trained.train(**SMALL)
    model = algorithm.load(trained.layout.model, "cpu")
    records = digits.test[0][:5].astype(np.float32)
    records.flags.writeable = False  # as a decoder gives that views the request's bytes
    answer = algorithm.predict(model, records)
    assert answer["predicted_label"].dtype == np.int64
    assert answer["score"].dtype == np.float32
    assert answer["score"].shape == (5, 10)
    assert answer["score"].sum(axis=1) == pytest.approx(np.ones(5))
    assert (answer["score"].argmax(axis=1) == answer["predicted_label"]).all()
    for index in range(5):
        alone = algorithm.predict(model, records[index : index + 1])
        assert alone["score"][0] == pytest.approx(answer["score"][index], abs=1e-6)
    empty = algorithm.predict(model, records[:0])
    assert (empty["predicted_label"].shape, empty["score"].shape) == ((0,), (0, 10))
    with pytest.raises(DataError) as caught:
        algorithm.predict(model, records[:, 1:].copy())
    assert caught.value.code == "RECORD_WIDTH"


def test_any_integers_are_labels(job: Callable[..., Any], digits: Any) -> None:
    records, labels = digits.train
    pair = labels < 2
    trained = job(MLPClassifier).channels(train=(records[pair], labels[pair] * 1000 - 7))
    algorithm = trained.train(epochs=3)
    model = algorithm.load(trained.layout.model, "cpu")
    answer = algorithm.predict(model, records[pair].astype(np.float32))
    assert set(answer["predicted_label"].tolist()) == {-7, 993}
    assert answer["score"].shape == (pair.sum(), 2)
    assert trained.metrics("validation:loss") == []


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    new: Callable[..., Any],
) -> None:
    one, two, other = new("one"), new("two"), new("other")
    one.train(**SMALL, seed=5)
    torch.rand(3)  # what else the process draws makes no difference
    two.train(**SMALL, seed=5)
    other.train(**SMALL, seed=6)
    assert weights(one) == weights(two)
    assert weights(one) != weights(other)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_a_resumed_training_ends_as_an_uninterrupted_one(
    new: Callable[..., Any], optimizer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """TRAIN-151, TRAIN-174: stopped in the third epoch, continued from the second's checkpoint."""
    settings = SMALL | {"optimizer": optimizer}
    whole = new("whole").checkpoints()
    whole.train(**settings)
    broken = new("broken").checkpoints()
    batches = math.ceil(1257 / 64)
    broken.train(**settings, stopping=After(2 * batches + 5))
    assert len(broken.metrics("train:loss")) == 2
    assert weights(broken) != weights(whole)
    broken.train(**settings)
    assert "resumes after epoch 2" in capsys.readouterr().out
    assert weights(broken) == weights(whole)
    assert broken.metrics("train:loss") == whole.metrics("train:loss")


def test_a_finished_training_resumes_to_the_same_model(new: Callable[..., Any]) -> None:
    trained = new().checkpoints()
    trained.train(**SMALL)
    before = weights(trained)
    (trained.layout.model / WEIGHTS).unlink()
    trained.train(**SMALL)
    assert weights(trained) == before
    assert len(trained.metrics("train:loss")) == SMALL["epochs"]


def test_checkpoints_hold_tensors_and_json_only(new: Callable[..., Any]) -> None:
    trained = new().checkpoints()
    trained.train(**SMALL)
    found = {path.name for path in trained.layout.checkpoints.rglob("*") if path.is_file()}
    assert found == {"checkpoint.json", "state.json", "tensors.safetensors"}


def test_a_checkpoint_of_another_training_is_refused(
    new: Callable[..., Any],
) -> None:
    trained = new().checkpoints()
    trained.train(**SMALL)
    with pytest.raises(AlgorithmError) as caught:
        trained.train(**(SMALL | {"hidden_units": [16, 8]}))
    assert caught.value.code == "CHECKPOINT_OF_ANOTHER_TRAINING"
    assert "S3Uri" in str(caught.value.remedy)


def test_stopping_at_once_still_saves_a_model(new: Callable[..., Any], digits: Any) -> None:
    """TRAIN-151."""
    trained = new()
    trained.train(**SMALL, stopping=After(10))
    assert trained.metrics("train:loss") == []
    assert accuracy(trained, digits.test) > 0


def test_stopping_saves_the_best_epoch_so_far(job: Callable[..., Any], digits: Any) -> None:
    """TRAIN-151: labels by lot can only be learned by heart, so validation gets worse and worse."""
    lot = np.random.default_rng(0)
    settings = SMALL | {"epochs": 50, "learning_rate": 0.02, "dropout": 0.0, "input_noise": 0.0}

    def stopped(name: str, epochs: int) -> Any:
        trained = job(MLPClassifier, name).channels(**channels)
        trained.train(**settings, stopping=After(20 * epochs + 3))  # 20 batches an epoch
        return trained

    channels = {
        "train": (digits.train[0], lot.integers(10, size=1257)),
        "validation": (digits.validation[0], lot.integers(10, size=270)),
    }
    trained = stopped("all", 8)
    losses = dict(trained.metrics("validation:loss")[:8])
    best = min(losses, key=lambda epoch: losses[epoch])
    assert best < 8
    assert weights(trained) == weights(stopped("best", best))


def test_early_stopping_ends_training_and_restores_the_best_epoch(
    new: Callable[..., Any], digits: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = new()
    trained.train(**(SMALL | {"epochs": 200, "learning_rate": 0.1, "early_stopping_patience": 3}))
    epochs = [step for step, _ in trained.metrics("train:loss")]
    logged = trained.metrics("validation:loss")
    best = min(logged, key=lambda each: each[1])
    assert len(epochs) < 200
    assert epochs[-1] == best[0] + 3
    assert f"no lower validation loss since epoch {best[0]}" in capsys.readouterr().out
    # The last value is what SageMaker reports: it is that of the saved weights.
    assert logged[-1] == best
    assert accuracy(trained, digits.validation) == pytest.approx(
        trained.metrics("validation:accuracy")[-1][1]
    )


def test_features_of_any_scale_are_learned_when_normalized(job: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2
    plain = rng.normal(size=(400, 3)) + 2 * labels[:, None]
    records = np.column_stack([plain * [1e-6, 1, 1e6] + [0, 5, 1e7], np.full(400, 3.5)])
    scores = {}
    for normalize in (True, False):
        trained = job(MLPClassifier, str(normalize)).channels(train=(records, labels))
        trained.train(epochs=20, hidden_units=[8], normalize=normalize, input_noise=0.0)
        scores[normalize] = accuracy(trained, (records, labels))
    assert scores[True] > 0.93
    assert scores[True] > scores[False]


@pytest.mark.parametrize("hidden_units", [[], [8, 4]])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_layers_are_as_the_hyperparameters_say(
    new: Callable[..., Any], hidden_units: list[int], activation: str
) -> None:
    trained = new()
    algorithm = trained.train(**(SMALL | {"hidden_units": hidden_units, "activation": activation}))
    model = algorithm.load(trained.layout.model, "cpu")
    shapes = [p.shape[0] for name, p in model.network.named_parameters() if "weight" in name]
    assert shapes == [*hidden_units, 10]
    description = json.loads((trained.layout.model / DESCRIPTION).read_text())
    assert description["activation"] == activation
    assert not any(module.training for module in model.network.modules())


@pytest.mark.parametrize(
    ("channels", "code", "place"),
    [
        ({"train": "1,2\n1,3\n"}, "LABELS_OF_ONE_CLASS", "train"),
        ({"train": "1.5,2\n1,3\n"}, "LABEL_NOT_AN_INTEGER", "train record 1"),
        (
            {"train": "1,2\n0,nan\n"},
            "VALUE_NOT_FINITE",
            "train (features) record 2, column 1",
        ),
        ({"train": "0,2\n1,3\n", "validation": "2,2\n"}, "LABEL_UNKNOWN", "validation record 1"),
        (
            {"train": "0,2\n1,3\n", "validation": "0,2,3\n"},
            "RECORD_WIDTH",
            "validation record 1",
        ),
        ({"validation": "0,2\n"}, "CHANNEL_MISSING", None),
    ],
)
def test_data_that_does_not_fit_is_named(
    job: Callable[..., Any], channels: dict[str, str], code: str, place: str | None
) -> None:
    with pytest.raises(DataError) as caught:
        job(MLPClassifier).channels(**channels).train(**SMALL)
    assert (caught.value.code, caught.value.where) == (code, place)


def test_a_diverging_training_is_an_error_not_a_model(job: Callable[..., Any]) -> None:
    huge = "0,1e30\n1,-1e30\n" * 40
    trained = job(MLPClassifier).channels(train=huge)
    with pytest.raises(AlgorithmError) as caught:
        trained.train(epochs=20, normalize=False, optimizer="sgd", learning_rate=10.0)
    assert caught.value.code == "TRAINING_DIVERGED"
    assert "lower learning_rate, now 10" in str(caught.value.remedy)
    assert list(trained.layout.model.iterdir()) == []


@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_a_model_that_cannot_be_read_is_an_error(new: Callable[..., Any], damage: str) -> None:
    trained = new()
    algorithm = trained.train(**SMALL)
    directory: Path = trained.layout.model
    if damage == "missing":
        (directory / WEIGHTS).unlink()
    elif damage == "cut":
        (directory / WEIGHTS).write_bytes(weights(trained)[:100])
    else:
        text = (directory / DESCRIPTION).read_text()
        (directory / DESCRIPTION).write_text(text.replace("16", "17"))
    with pytest.raises(AlgorithmError) as caught:
        algorithm.load(directory, "cpu")
    assert caught.value.code == "MODEL_UNREADABLE"


@pytest.mark.parametrize(
    ("settings", "variable", "threads"),
    [
        ({"hidden_units": [8]}, None, 1),
        ({"hidden_units": [1024], "mini_batch_size": 1000}, None, 2),
        ({"hidden_units": [8]}, "2", 2),
    ],
)
def test_threads_follow_the_work_of_a_step_unless_the_environment_says(
    new: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    variable: str | None,
    threads: int,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    torch.set_num_threads(2)  # torch itself reads the variable when the process starts
    new().train(epochs=1, **settings)
    assert torch.get_num_threads() == threads


if torch.cuda.is_available():

    def test_gpu_and_cpu_train_alike_and_predict_the_same(
        new: Callable[..., Any], digits: Any
    ) -> None:
        trained = new()
        trained.device = "cuda"
        algorithm = trained.train(epochs=20)
        assert accuracy(trained, digits.test) >= 0.95
        records = digits.test[0].astype(np.float32)
        scores = {
            device: algorithm.predict(algorithm.load(trained.layout.model, device), records)
            for device in ("cpu", "cuda")
        }
        assert scores["cpu"]["score"] == pytest.approx(scores["cuda"]["score"], abs=1e-4)
