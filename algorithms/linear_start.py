"""Where linear-learner's second-order method starts: at the optimum of the sample.

The sample lies in the memory before the first pass. Newton's steps on it cost little beside a pass
over the data, and from its optimum few passes are left; where it is all of the data, one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from byoa.algorithms.array_state import State
from byoa.algorithms.linear_losses import Loss

# Of the sample, at least: more would tell little more.
_RECORDS = 4096
# With fewer records a weight, the optimum of the sample says little of that of the data.
_RECORDS_PER_WEIGHT = 8
_STEPS = 15
_HALVINGS = 6
_SETTLED = 1e-9  # share of the objective that the next step can still gain


def records(there: int, rows: int) -> int:
    """How many of the sample's records to start by; 0: too few are there for so many weights."""
    least = _RECORDS_PER_WEIGHT * rows
    return min(there, max(_RECORDS, least)) if there >= least else 0


def improve(
    state: State, single: Tensor, targets: Tensor, share: Tensor | None, loss: Loss
) -> None:
    """Move the weights of the only model of `state`, which has one output, to the optimum of the
    records `single` (n, D).

    `share` (n, 1) weights the records. L1 must be 0.
    """
    double, l2, weights = single.double(), state["l2"][:, 0], state["weights"][:, 0, 0]
    even = torch.ones_like(double[:, 0])
    scale = even if share is None else share[:, 0].double()
    scale = scale / scale.sum()
    at, before, halvings = weights, torch.inf, 0
    for _ in range(_STEPS):
        terms = loss((double @ weights)[:, None], targets)
        objective = float(terms.value[:, 0] @ scale + l2 @ weights**2 / 2)
        if not objective <= before:
            if halvings == _HALVINGS:
                break
            weights, halvings = (at + weights) / 2, halvings + 1
            continue
        at, before, halvings = weights, objective, 0
        gradient = double.T @ (terms.derivative[:, 0] * scale) + l2 * weights
        shares = (terms.curvature[:, 0] * scale).to(single.dtype)
        curvature = (single.T @ (single * shares[:, None])).double()
        floor = 1e-10 * curvature.diagonal().max().clamp(min=1e-30)
        factor, failed = torch.linalg.cholesky_ex(curvature + torch.diag(l2 + floor))
        if failed:
            break
        step = torch.cholesky_solve(gradient[:, None], factor)[:, 0]
        weights = weights - step
        if float(gradient @ step) / 2 <= _SETTLED * abs(objective):
            at = weights
            break
    state["weights"] = at[:, None, None].clone()
