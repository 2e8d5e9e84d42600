"""The gradient steps of linear-learner: sgd, adam and rmsprop for all models at once.

Each model has its own learning rate; weights are (D, M, K), and the last row is the bias's where
there is one. The penalties follow the optimizer: L2 is part of the gradient, L1 shrinks afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from byoa.algorithms.array_state import State

_EPSILON = 1e-8
_RMS_DECAY = 0.9


@dataclass(frozen=True)
class Stepper:
    """The optimizer and its schedule: the rate falls by `factor` every `every` steps."""

    optimizer: str
    momentum: float
    beta_1: float
    beta_2: float
    every: int  # 0: the rate stays
    factor: float
    minimum: float

    def start(self, state: State) -> None:
        """Add what the optimizer remembers, of every weight."""
        state["steps"] = 0
        if self.optimizer == "adam" or self.momentum:
            state["first"] = torch.zeros_like(state["weights"])
        if self.optimizer != "sgd":
            state["second"] = torch.zeros_like(state["weights"])

    def step(self, state: State, gradient: Tensor) -> None:
        """Move `weights` by one step; `gradient` (D, M, K) is that of the mean loss."""
        weights, l2, l1 = state["weights"], state["l2"], state["l1"]
        gradient = gradient + l2[:, :, None] * weights
        state["steps"] += 1
        rates = self._rates(state["rates"], state["steps"])
        move = rates[:, :, None] * self._move(state, gradient)
        weights = weights - move
        shrink = (rates * l1)[:, :, None]
        state["weights"] = weights.sign() * (weights.abs() - shrink).clamp(min=0)

    def _rates(self, rates: Tensor, steps: int) -> Tensor:
        if not self.every:
            return rates
        lower = rates * self.factor ** ((steps - 1) // self.every)
        # The minimum is of the schedule: it does not lift a rate that is below it from the start.
        return torch.maximum(lower, torch.clamp(rates, max=self.minimum))

    def _move(self, state: State, gradient: Tensor) -> Tensor:
        """The direction of a step of rate 1."""
        if self.optimizer == "sgd":
            if not self.momentum:
                return gradient
            moving: Tensor = self.momentum * state["first"] + gradient
            state["first"] = moving
            return moving
        decay = self.beta_2 if self.optimizer == "adam" else _RMS_DECAY
        state["second"] = decay * state["second"] + (1 - decay) * gradient**2
        if self.optimizer == "rmsprop":
            scaled: Tensor = gradient / (state["second"].sqrt() + _EPSILON)
            return scaled
        state["first"] = self.beta_1 * state["first"] + (1 - self.beta_1) * gradient
        first = state["first"] / (1 - self.beta_1 ** state["steps"])
        second = state["second"] / (1 - self.beta_2 ** state["steps"])
        move: Tensor = first / (second.sqrt() + _EPSILON)
        return move
