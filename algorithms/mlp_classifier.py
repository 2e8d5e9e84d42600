"""mlp-classifier: a multilayer perceptron on CPU or GPU, for records of numbers with a class each.

Channels: `train`, and optionally `validation` for early stopping and the choice of the best epoch.
Several hosts train one model: each works on its part of every step, and the gradients are summed.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.functional import cross_entropy

from byoa.algorithms import Algorithm, Run, group_data, param, torch_state
from byoa.algorithms.classes import merge_classes
from byoa.algorithms.mlp_network import Network, Shape
from byoa.algorithms.process_group import Gradients, Group, process_group
from byoa.algorithms.record_shares import Shares, seed_of
from byoa.container.errors import AlgorithmError, DataError
from byoa.container.formats.base import Batch
from byoa.container.formats.checks import require_finite, require_width

WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"
# Weights times records of a step that keep one core busy for so long (about a millisecond) that
# handing a part of them to another core is worth it.
_WORK_OF_A_THREAD = 8_000_000
_EVALUATION_RECORDS = 8192  # a batch that bounds memory without costing time


class MLPClassifier(Algorithm):
    """Classify records with a multilayer perceptron."""

    metrics = ("train:loss", "validation:loss", "validation:accuracy")
    distributed = True

    class Hyperparameters(Algorithm.Hyperparameters):
        hidden_units: list[int] = param(
            [256], doc="units of each hidden layer; [] is logistic regression", min=1, max=65536
        )
        activation: Literal["gelu", "relu"] = param("gelu", doc="between the layers")
        epochs: int = param(60, doc="passes over the data, at most", min=1, max=100_000)
        mini_batch_size: int = param(
            32, doc="records a step, of all hosts together", min=1, max=1_000_000
        )
        optimizer: Literal["adamw", "adam", "sgd"] = param(
            "adamw", doc="sgd has a Nesterov momentum of 0.9"
        )
        learning_rate: float = param(
            0.002, doc="of the first step; falls to 0 along a cosine", min=1e-8, max=10
        )
        weight_decay: float = param(
            0.01, doc="decoupled in adamw, an L2 penalty in adam and sgd", min=0, max=10
        )
        dropout: float = param(
            0.2, doc="share of hidden units left out in each step", min=0, max=0.95
        )
        label_smoothing: float = param(
            0.1, doc="share of the target spread over all classes", min=0, max=0.9
        )
        input_noise: float = param(
            0.2,
            doc="standard deviation of the noise added to inputs in training, after normalizing",
            min=0,
            max=10,
        )
        normalize: bool = param(
            True, doc="scale each feature to mean 0 and standard deviation 1 of the training data"
        )
        early_stopping_patience: int = param(
            20,
            doc="epochs without a lower validation loss after which training ends; needs the"
            " validation channel",
            min=1,
            max=100_000,
        )
        seed: int = param(0, doc="of weights, order, dropout and noise", min=0, max=2**32 - 1)

    hyperparameters: Hyperparameters

    def train(self, run: Run) -> None:
        with process_group(run) as group:
            training = _Training(self.hyperparameters, run, group)
            training.resume()
            training.fit()
            training.save()

    def load(self, model_dir: Path, device: str) -> Model:
        try:
            shape = Shape(**json.loads((model_dir / DESCRIPTION).read_text(encoding="utf-8")))
            # Tensors stay in the file, which is mapped: all workers of a server share its pages.
            with torch.device("meta"):
                network = Network(shape)
            network.load_state_dict(
                safetensors.torch.load_file(model_dir / WEIGHTS), assign=True
            )
        except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
            raise AlgorithmError(
                "MODEL_UNREADABLE",
                f"{type(error).__name__}: {error}",
                where=str(model_dir),
                expected=f"{DESCRIPTION} and {WEIGHTS} as mlp-classifier saved them",
            ) from error
        return Model(network.to(device).eval(), np.array(shape.labels, dtype=np.int64), device)

    def predict(self, model: Model, records: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """The class of each record (n,), and the probability of each class (n, classes)."""
        require_width(records, model.network.mean.shape[0])
        writable = np.require(records, np.float32, ["C", "W"])  # torch warns of any other array
        with torch.inference_mode():
            inputs = torch.from_numpy(writable).to(model.device)
            score = model.network(inputs).softmax(dim=1).cpu().numpy()
        return {"predicted_label": model.labels[score.argmax(axis=1)], "score": score}


@dataclass(frozen=True)
class Model:
    """A loaded model; `labels` (classes,) is what the outputs stand for, in their order."""

    network: Network
    labels: NDArray[np.int64]
    device: str


@dataclass
class _Progress:
    """How far a training is; saved with each checkpoint."""

    epoch: int = 0  # epochs that are complete
    best_epoch: int = 0  # 0: none has been measured
    best_loss: float | None = None
    best_accuracy: float | None = None


class _Training:
    """One training, from its data to the saved model."""

    def __init__(
        self, settings: MLPClassifier.Hyperparameters, run: Run, group: Group
    ) -> None:
        self.settings = settings
        self.run = run
        self.group = group
        batch, divided = self._load("train"), self._divided("train")
        found = group.all_gather(group_data.describe(batch))
        facts = [json.loads(each) for each in found]
        width, counts = group_data.agree(facts, divided)
        classes = merge_classes([np.array(each["classes"], np.int64) for each in facts], "train")
        self.shape = Shape(
            features=width,
            hidden_units=settings.hidden_units,
            activation=settings.activation,
            labels=classes.tolist(),
        )
        run.signature.setdefault("features", width)  # the leader may have no record
        features, targets = group_data.arrays(batch, classes, width, "train")
        self.shares = Shares(counts, group.rank, divided, settings.mini_batch_size)
        self.records, self.targets = self._on_device(features, targets)
        self.validation = self._validation(classes)
        torch.manual_seed(settings.seed)
        self.network = Network(
            self.shape, dropout=settings.dropout, input_noise=settings.input_noise
        )
        if settings.normalize:
            mean, std = group_data.moments(features, group if divided else None)
            self.network.mean.copy_(mean)
            self.network.std.copy_(std)
        self.network.to(run.device)
        if run.device == "cpu":
            _plan_threads(self.network, settings.mini_batch_size // group.size)
        self.optimizer = _optimizer(settings, self.network)
        self.gradients = Gradients(self.network, group) if group.size > 1 else None
        self.progress = _Progress()
        self.best: dict[str, Tensor] = {}
        self.logged_epoch = 0

    def _divided(self, name: str) -> bool:
        """Whether each host has records of its own (TRAIN-100)."""
        distribution = self.run.channel(name).config.distribution
        return self.group.size > 1 and distribution == "ShardedByS3Key"

    def _load(self, name: str) -> Batch | None:
        """The channel's records; None on a host to which no object of a divided channel fell."""
        try:
            batch = self.run.channel(name).load()
        except DataError as error:
            if error.code == "CHANNEL_EMPTY" and self._divided(name):
                return None
            raise
        require_finite(batch.features, f"{name} (features)")
        return batch

    def _on_device(
        self, features: NDArray[np.float32], targets: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        device = self.run.device
        return torch.from_numpy(features).to(device), torch.from_numpy(targets).to(device)

    def _validation(self, classes: NDArray[np.int64]) -> tuple[Tensor, Tensor] | None:
        """This process's part of the records to measure with."""
        if "validation" not in self.run.channels:
            return None
        batch, group = self._load("validation"), self.group
        if batch is not None:
            require_width(batch.features, self.shape.features, "validation")
        features, targets = group_data.arrays(batch, classes, self.shape.features, "validation")
        if group.size > 1 and not self._divided("validation"):
            own = slice(group.rank, None, group.size)
            features, targets = features[own], targets[own]
        return self._on_device(features, targets)

    def resume(self) -> None:
        """Continue from the newest checkpoint, if there is one (TRAIN-174): the leader's, so that
        all begin alike."""
        packed = b""
        checkpoint = self.run.checkpoints.latest() if self.group.leads else None
        if checkpoint is not None:
            packed = torch_state.pack(checkpoint.path)
        packed = self.group.broadcast(packed)
        if not packed:
            return
        tensors, scalars = torch_state.unpack(packed)
        if scalars["of"] != self._identity():
            raise AlgorithmError(
                "CHECKPOINT_OF_ANOTHER_TRAINING",
                f"the checkpoint is of {scalars['of']}, this job trains {self._identity()}",
                where=str(checkpoint.path if checkpoint else self.run.checkpoints.directory),
                expected="the same data, hidden_units, activation and optimizer",
                remedy="give the job a CheckpointConfig.S3Uri of its own",
            )
        self.progress = _Progress(**scalars["progress"])
        self.network.load_state_dict(torch_state.under("network", tensors))
        self.best = torch_state.under("best", tensors)
        torch_state.restore_optimizer(self.optimizer, torch_state.under("optimizer", tensors))
        print(f"resumes after epoch {self.progress.epoch}", flush=True)

    def fit(self) -> None:
        """Train until the last epoch, early stopping, or SageMaker's stop (TRAIN-151)."""
        progress = self.progress
        while progress.epoch < self.settings.epochs:
            if self._stale():
                print(
                    f"early stopping: no lower validation loss since epoch {progress.best_epoch}",
                    flush=True,
                )
                return
            loss = self._epoch()
            if loss is None:
                print(f"stopped in epoch {progress.epoch + 1}", flush=True)
                return
            progress.epoch += 1
            if self.group.leads:
                self.run.metrics.log("train:loss", loss, progress.epoch)
            validation_loss = self._validate()
            if self.group.leads:
                self.run.checkpoints.save(self._write_state, progress.epoch, validation_loss)

    def save(self) -> None:
        """Save the weights of the best epoch; without validation, those that training ended with.

        The last validation metrics logged are those of the saved weights, because SageMaker takes
        a metric's last value for its final one. The leader saves: every process has the same
        weights, and the hosts' files become one archive (TRAIN-132, TRAP-22).
        """
        if not self.group.leads:
            return
        if self.best:
            self.network.load_state_dict(self.best)
            if self.progress.best_epoch != self.logged_epoch:
                self._log_validation(
                    self.progress.best_loss, self.progress.best_accuracy, self.progress.best_epoch
                )
        directory = self.run.model_dir
        safetensors.torch.save_file(torch_state.copy_of(self.network), directory / WEIGHTS)
        description = json.dumps(asdict(self.shape), indent=1)
        (directory / DESCRIPTION).write_text(description, encoding="utf-8")

    def _epoch(self) -> float | None:
        """One pass over the data in random order: the mean loss, None when asked to stop."""
        settings, shares, epoch = self.settings, self.shares, self.progress.epoch
        order = shares.order(settings.seed, epoch).to(self.run.device)
        torch.manual_seed(seed_of(settings.seed, epoch, 1 + self.group.rank))  # noise, dropout
        total = torch.zeros((), dtype=torch.float64, device=self.run.device)
        self.network.train()
        for step in range(shares.steps):
            chosen, count = shares.of(order, step)
            done = (epoch + step / shares.steps) / settings.epochs
            for each in self.optimizer.param_groups:
                each["lr"] = settings.learning_rate * (1 + math.cos(math.pi * done)) / 2
            stop = self.run.stopping
            if self.gradients is not None:
                self.gradients.clear()
            elif stop:
                return None
            else:
                self.optimizer.zero_grad()
            if len(chosen):
                loss = cross_entropy(
                    self.network(self.records[chosen]),
                    self.targets[chosen],
                    label_smoothing=settings.label_smoothing, reduction="sum",
                )
                (loss / count).backward()  # type: ignore[no-untyped-call]
                total += loss.detach()
            if self.gradients is not None and self.gradients.sum(stop):
                return None
            self.optimizer.step()
        mean = float(self.group.sum(total)) / shares.total
        if not math.isfinite(mean):
            raise AlgorithmError(
                "TRAINING_DIVERGED",
                f"the loss is {mean} in epoch {self.progress.epoch + 1}",
                expected="a finite loss",
                remedy=f"lower learning_rate, now {settings.learning_rate:g}; keep normalize true",
            )
        return mean

    def _validate(self) -> float | None:
        """Measure this epoch's weights, keep them if they are the best; the loss."""
        if self.validation is None:
            return None
        loss, accuracy = self._measure(*self.validation)
        progress = self.progress
        self._log_validation(loss, accuracy, progress.epoch)
        if progress.best_loss is None or loss < progress.best_loss:
            progress.best_epoch = progress.epoch
            progress.best_loss, progress.best_accuracy = loss, accuracy
            self.best = torch_state.copy_of(self.network)
        return loss

    def _measure(self, records: Tensor, targets: Tensor) -> tuple[float, float]:
        """Mean cross-entropy, without smoothing, and accuracy, over all processes' records."""
        self.network.eval()
        loss, right = 0.0, 0
        with torch.inference_mode():
            for start in range(0, len(records), _EVALUATION_RECORDS):
                part = slice(start, start + _EVALUATION_RECORDS)
                logits, wanted = self.network(records[part]), targets[part]
                loss += float(cross_entropy(logits, wanted, reduction="sum"))
                right += int((logits.argmax(dim=1) == wanted).sum())
        sums = torch.tensor([loss, right, len(records)], dtype=torch.float64)
        loss, right, count = self.group.sum(sums.to(self.run.device)).tolist()
        return loss / count, right / count

    def _log_validation(self, loss: float | None, accuracy: float | None, epoch: int) -> None:
        if not self.group.leads:
            return
        self.run.metrics.log("validation:loss", loss, epoch)
        self.run.metrics.log("validation:accuracy", accuracy, epoch)
        self.logged_epoch = epoch

    def _stale(self) -> bool:
        waited = self.progress.epoch - self.progress.best_epoch
        return bool(self.best) and waited >= self.settings.early_stopping_patience

    def _identity(self) -> dict[str, Any]:
        """What a checkpoint must have in common with this training."""
        return asdict(self.shape) | {"optimizer": self.settings.optimizer}

    def _write_state(self, directory: Path) -> None:
        torch_state.write(
            directory,
            torch_state.prefixed("network", self.network.state_dict())
            | torch_state.prefixed("best", self.best)
            | torch_state.prefixed("optimizer", torch_state.optimizer_tensors(self.optimizer)),
            {"of": self._identity(), "progress": asdict(self.progress)},
        )


def _plan_threads(network: Network, records: int) -> None:
    """Take as many threads as a step of `records` can use, OMP_NUM_THREADS where it is set.

    With more, small layers get slower; where other processes share the cores, many times slower.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        weights = sum(parameter.numel() for parameter in network.parameters())
        useful = 1 + weights * records // _WORK_OF_A_THREAD
        torch.set_num_threads(min(torch.get_num_threads(), useful))
    print(f"threads: {torch.get_num_threads()}", flush=True)


def _optimizer(settings: MLPClassifier.Hyperparameters, network: Network) -> torch.optim.Optimizer:
    parameters, rate, decay = network.parameters(), settings.learning_rate, settings.weight_decay
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
    if settings.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
    return torch.optim.SGD(parameters, lr=rate, weight_decay=decay, momentum=0.9, nesterov=True)
