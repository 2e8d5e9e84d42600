"""The training of linear-learner: from batches to sums, steps, measurements and the model.

The state, tensors in float64 on the device (D weights an output, M models, K outputs a model):

    weights (D, M, K)         those of the present pass; the last row is the bias's if there is one
    shift, scale              of the features, as the models see them
    label_shift, label_scale  of the label
    l2, l1 (D, M)             penalties of each weight
    positive (M,), classes    weights of label 1 in each model, of each class
    loss, mass (M,) …         sums of the pass, and what solver or stepper remember
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from byoa.algorithms import linear_solver as solver
from byoa.algorithms import linear_start as start
from byoa.algorithms.array_state import State
from byoa.algorithms.linear_labels import require_labels
from byoa.algorithms.linear_losses import SQUARED, Shape, find
from byoa.algorithms.linear_options import BINARY, MULTICLASS, REGRESSOR
from byoa.algorithms.linear_settings import SECOND_ORDER, Settings, resolve
from byoa.algorithms.streaming import Origin
from byoa.container.errors import AlgorithmError
from byoa.container.formats.base import Batch
from byoa.container.run import Run

_OUTPUT_NUMBERS = 4_000_000  # of a block of records, which bounds what a batch takes of memory
# Records that are enough to know the curvature well; more would cost more than they save.
_CURVATURE_RECORDS = 16_384
_CURVATURE_TIMES_WIDTH = 64
# Multiplications that keep one core busy for about a millisecond.
_WORK_OF_A_THREAD = 8_000_000
_SUMS = ("loss", "mass", "gradient", "gram", "gram_mass", "gram_records", "seen")


class Prepared(NamedTuple):
    """Normalized records (n, D), with a column of ones for the bias, and their targets (n,)."""

    records: Tensor
    targets: Tensor


class Trainer:
    """What a training does to its state; holds nothing that the state does not tell."""

    def __init__(self, values: Any, run: Run, state: State) -> None:
        self.values = values
        self.run = run
        self.width = len(state["shift"])
        self.settings = resolve(values, self.width, "validation" in run.channels)
        self.second_order = self.settings.optimizer == SECOND_ORDER
        self.quadratic = self.second_order and self.settings.loss == SQUARED
        self.loss = find(
            self.settings.loss,
            Shape(values.margin, values.quantile, values.loss_insensitivity, values.huber_delta),
        )
        self._shift = state["shift"].float()
        self._inverse_scale = (1 / state["scale"]).float()
        self._cast: tuple[Tensor, Tensor] = (state["weights"], state["weights"].float())
        if run.device == "cpu":
            _plan_threads(len(state["weights"]), self.settings, values.mini_batch_size)

    # --- a batch ------------------------------------------------------------------------------

    def prepare(self, state: State, batch: Batch, origin: Origin) -> Prepared:
        """Normalize once, into memory that has room for the bias's column."""
        labels = require_labels(self.values, batch.labels, origin)
        device = self.run.device
        raw = torch.from_numpy(np.require(batch.features, np.float32, ["C", "W"])).to(device)
        records = torch.empty((len(raw), len(state["weights"])), device=device)
        torch.sub(raw, self._shift, out=records[:, : self.width])
        records[:, : self.width] *= self._inverse_scale
        if self.values.use_bias:
            records[:, self.width] = 1
        if self.settings.kind == REGRESSOR:
            labels = (labels - state["label_shift"]) / state["label_scale"]
        kind = torch.int64 if self.settings.kind == MULTICLASS else torch.float32
        return Prepared(records, torch.from_numpy(labels).to(device, kind))

    def start(self, state: State, sample: Batch) -> None:
        """Better first weights than drawn ones, where the sample tells of any."""
        alone = self.settings.models * self.settings.outputs == 1
        if not (self.second_order and alone) or self.quadratic or state["l1"].any():
            return
        count = start.records(len(sample.features), len(state["weights"]))
        if not count:
            return
        labels = None if sample.labels is None else sample.labels[:count]
        prepared = self.prepare(state, Batch(sample.features[:count], labels), Origin("train"))
        if self.settings.kind == BINARY and prepared.targets.min() == prepared.targets.max():
            return
        share = self._shares(state, prepared)
        start.improve(state, prepared.records, prepared.targets, share, self.loss)

    def update(self, state: State, batch: Prepared) -> None:
        if self.second_order:
            for block in self._blocks(batch):
                self._add(state, block)
            return
        size = self.values.mini_batch_size
        for first in range(0, len(batch.targets), size):
            part = Prepared(*(each[first : first + size] for each in batch))
            before = state["mass"]
            gradient = self._add(state, part)
            self.settings.stepper.step(
                state, gradient / (state["mass"] - before).clamp(min=1e-30)[:, None]
            )

    def _add(self, state: State, batch: Prepared) -> Tensor:
        """Add a batch to the sums; its gradient (D, M, K)."""
        weights = self._single(state["weights"])
        terms = self._terms(weights, batch)
        share = self._shares(state, batch)
        derivative = terms.derivative
        value = terms.value
        if share is not None:
            derivative = derivative * (share if derivative.ndim == 2 else share[:, :, None])
            value = value * share
            mass = share.sum(dim=0, dtype=torch.float64).expand(value.shape[1])
        else:
            mass = torch.full_like(state["mass"], len(value))
        gradient: Tensor = batch.records.T @ derivative.reshape(len(value), -1)
        gradient = gradient.double().view_as(state["weights"])
        state["loss"] = state["loss"] + value.sum(dim=0, dtype=torch.float64)
        state["mass"] = state["mass"] + mass
        state["seen"] += len(value)
        if self.second_order:
            state["gradient"] = state["gradient"] + gradient
            curvature = terms.curvature if share is None else terms.curvature * share
            self._add_curvature(state, batch.records, curvature.mean(dim=1), mass.mean())
        return gradient

    def _add_curvature(
        self, state: State, records: Tensor, curvature: Tensor, mass: Tensor
    ) -> None:
        if self.quadratic:
            if "at" in state:
                return  # it is the same in every pass
            wanted = len(records)
        else:
            limit = max(_CURVATURE_RECORDS, _CURVATURE_TIMES_WIDTH * records.shape[1])
            wanted = min(len(records), limit - state["gram_records"])
            if wanted <= 0:
                return
        part = records[:wanted]
        product = (part * curvature[:wanted, None]).T @ part
        state["gram"] = state["gram"] + product.double()
        state["gram_mass"] = state["gram_mass"] + mass * (wanted / len(records))
        state["gram_records"] += wanted

    def _terms(self, weights: Tensor, batch: Prepared) -> Any:
        outputs = batch.records @ weights.flatten(1)
        if self.settings.kind == MULTICLASS:
            outputs = outputs.view(len(outputs), weights.shape[1], weights.shape[2])
        return self.loss(outputs, batch.targets)

    def _shares(self, state: State, batch: Prepared) -> Tensor | None:
        """The weight of each record in each model's loss, (n, M) or (n, 1); None: all are 1."""
        if self.settings.kind == MULTICLASS and self.values.balance_multiclass_weights:
            of_class: Tensor = state["classes"].float()[batch.targets][:, None]
            return of_class
        if self.settings.kind == BINARY and self.values.positive_example_weight_mult != 1:
            of_label: Tensor = 1 + batch.targets[:, None] * (state["positive"].float() - 1)
            return of_label
        return None

    def _blocks(self, batch: Prepared) -> Iterator[Prepared]:
        outputs = self.settings.models * self.settings.outputs
        rows = max(1, _OUTPUT_NUMBERS // outputs)
        if len(batch.targets) <= rows:
            yield batch
            return
        for first in range(0, len(batch.targets), rows):
            yield Prepared(*(each[first : first + rows] for each in batch))

    def _single(self, weights: Tensor) -> Tensor:
        """The weights as float32, which the second-order method needs once a pass."""
        if self._cast[0] is not weights:
            self._cast = (weights, weights.float())
        return self._cast[1]

    # --- a pass -------------------------------------------------------------------------------

    def begin(self, state: State) -> None:
        models, rows = self.settings.models, len(state["weights"])
        new = state["weights"].new_zeros
        state.update(loss=new(models), mass=new(models), seen=0)
        if self.second_order:
            state["gradient"] = torch.zeros_like(state["weights"])
            if not (self.quadratic and "at" in state):
                state.update(gram=new((rows, rows)), gram_mass=new(()), gram_records=0)

    def merge(self, state: State, other: State) -> None:
        if self.second_order:
            fixed = self.quadratic and "at" in state
            for name in _SUMS:
                if not (fixed and name.startswith("gram")):
                    state[name] = state[name] + other[name]
            return
        whole = state["seen"] + other["seen"]
        part = other["seen"] / max(whole, 1)
        for name in ("weights", "first", "second"):
            if name in state:
                state[name] = (1 - part) * state[name] + part * other[name]
        for name in ("loss", "mass"):
            state[name] = state[name] + other[name]
        state.update(seen=whole, steps=max(state["steps"], other["steps"]))

    def end(self, state: State) -> None:
        state["train_loss"] = state["loss"] / state["mass"]
        if self.second_order:
            self._solve(state)
        state["chosen"] = int(state["train_loss"].nan_to_num(nan=torch.inf).argmin())

    def _solve(self, state: State) -> None:
        exact = self.settings.models * self.settings.outputs == 1
        exact = exact and state["gram_records"] == state["seen"]
        solver.step(state, quadratic=self.quadratic, exact=exact)

    def go_on(self, state: State, scores: Mapping[str, float], epoch: int) -> bool:
        """Keep the best weights; false when nothing more is to be gained (early stopping)."""
        loss = float(state["train_loss"][state["chosen"]])
        self.run.metrics.log("train:objective_loss", loss, epoch)
        if not np.isfinite(loss):
            raise AlgorithmError(
                "TRAINING_DIVERGED", f"the loss is {loss}",
                expected="a finite loss",
                remedy="lower learning_rate, or leave optimizer and learning_rate at auto",
            )
        improved = self._improved_optimum(state) if self.second_order else self._improved(
            state, state["value"] if scores else -loss
        )
        if self.second_order and bool(state["settled"].all()):
            return False
        state["stale"] = 0 if improved else state["stale"] + 1
        if state["stale"] < self.values.early_stopping_patience:
            return True
        print(f"early stopping: {state['stale']} passes without an improvement", flush=True)
        return False

    def _improved_optimum(self, state: State) -> bool:
        """Whether any model came nearer to its optimum by more than the tolerance."""
        state["best_weights"] = state["weights"]  # the last are the nearest
        before = state.get("best_objective")
        state["best_objective"] = now = state["at_objective"]
        if before is None:
            return True
        gain = self.values.early_stopping_tolerance * before.abs()
        return bool((before - now > gain).any())

    def _improved(self, state: State, value: float) -> bool:
        """Keep the weights that are the best so far; whether they are by more than the
        tolerance."""
        best = state.get("best_value")
        if best is not None and value <= best:
            return False
        state.update(
            best_value=value, best_weights=state["weights"], best_chosen=state["chosen"],
            best_threshold=state.get("threshold", 0.0),
        )
        tolerance = self.values.early_stopping_tolerance
        return best is None or value - best > tolerance * abs(best)

    # --- measuring ----------------------------------------------------------------------------

    def measure(self, state: State, batches: Iterable[Prepared], channel: str) -> State:
        """Sums of losses and of what the metrics are made of."""
        from byoa.algorithms.linear_measure import Measurement

        weights = state["weights"]
        if channel != "validation":
            weights = state.get("best_weights", weights)
        measurement = Measurement(self.settings, self.values, weights, state["label_scale"])
        single = weights.float()
        for batch in batches:
            for block in self._blocks(batch):
                outputs = block.records @ single.flatten(1)
                outputs = outputs.view(len(outputs), *weights.shape[1:])
                terms = self.loss(
                    outputs if self.settings.kind == MULTICLASS else outputs[:, :, 0],
                    block.targets,
                )
                measurement.add(outputs, block.targets, terms.value, self._shares(state, block))
        return measurement.sums()

    def score(self, state: State, parts: Sequence[State], channel: str) -> dict[str, float]:
        """The metrics of the best model, which is chosen here by all channels but `test`."""
        from byoa.algorithms.linear_measure import choose, report

        chosen: Any
        threshold: Any
        if channel == "test":
            chosen = state.get("best_chosen", state["chosen"])
            threshold = state.get("best_threshold", state.get("threshold", 0.0))
        else:
            chosen, threshold, value = choose(self.settings, self.values, parts)
            state.update(chosen=chosen, threshold=threshold, value=value)
            if channel == "train":  # of the final weights, after the last pass
                state.update(best_chosen=chosen, best_threshold=threshold)
        return report(self.settings, self.values, parts, chosen, threshold)

    # --- the model ----------------------------------------------------------------------------

    def model(self, state: State) -> dict[str, Any]:
        """The best model in the units of features and label."""
        state = dict(state)
        weights = state.get("best_weights")
        if weights is None:
            if self.second_order and "at" not in state:
                self._solve(state)  # stopped in the first pass: what its part of the data say
            weights = state["weights"]
        chosen = state.get("best_chosen", state.get("chosen", 0))
        best = weights[:, chosen].cpu().numpy() * state["label_scale"]
        scale = state["scale"].cpu().numpy()
        bias = np.full(best.shape[1], float(state["label_shift"]))
        if self.values.use_bias:
            bias += best[-1]
        return {
            "predictor_type": self.settings.kind,
            "loss": self.settings.loss,
            "optimizer": self.settings.optimizer,
            "threshold": state.get("best_threshold", state.get("threshold", 0.0)),
            "wd": float(self.settings.wd[chosen]),
            "l1": float(self.settings.l1[chosen]),
            "positive_example_weight_mult": float(state["positive"][chosen]),
            "weights": best[: self.width] / scale[:, None],
            "bias": bias,
            "shift": state["shift"].cpu().numpy(),
        }


def _plan_threads(rows: int, settings: Settings, records: int) -> None:
    """As many threads as a batch can use, at most as many as there are: those that wait for one
    another in small products lose more time than they save, much more on busy cores."""
    work = rows * settings.models * settings.outputs * records
    if settings.optimizer == SECOND_ORDER:
        work = rows * max(rows, settings.models * settings.outputs) * 8192
    useful = 1 + work // _WORK_OF_A_THREAD
    torch.set_num_threads(min(torch.get_num_threads(), useful))
    print(f"threads: {torch.get_num_threads()}", flush=True)
