"""The second-order solver of linear-learner: one step for all models from the sums of one pass.

A pass gives each model's mean loss f and gradient g at its weights, and one matrix S, the mean of
curvature times x·xᵀ over the models and, for speed, over no more records than it takes to know it.
Each model moves along -(S + L2)⁻¹·g, corrected by what earlier passes have shown of its own
curvature (L-BFGS with that matrix as its start), halving the step where the loss did not fall.
One model on all records has its exact S: then that is Newton's method, and least squares ends after
one pass. With L1 the direction is to the minimum of the quadratic model with the penalty in it.

Shapes: D weights of an output, M models, K outputs a model; all float64. Weights are (D, M, K).
"""

from __future__ import annotations

import torch
from torch import Tensor

from byoa.algorithms.array_state import State

HISTORY = 10  # pairs that are remembered
# A model is settled when what its next step can still gain is this share of its objective.
_SETTLED = 1e-6
_ARMIJO = 1e-4
_CURVED = 1e-8  # cosine below which a pair says nothing
# Of a mean loss that is summed from float32 values.
_NOISE = 2e-7
_PROXIMAL_STEPS = 2000
_PROXIMAL_TOLERANCE = 1e-10


def penalty(weights: Tensor, l2: Tensor, l1: Tensor) -> Tensor:
    """The penalty of each model (M,); `l2` and `l1` are (D, M)."""
    weighted = l2[:, :, None] / 2 * weights**2 + l1[:, :, None] * weights.abs()
    return weighted.sum(dim=(0, 2))


def step(state: State, *, quadratic: bool, exact: bool) -> None:
    """Set `weights` for the next pass and `settled` (M,), from the sums of the last.

    `quadratic`: the loss is, and S holds all records, so the step needs no trial. `exact`: S is
    the one model's own.
    """
    weights, l2, l1 = state["weights"], state["l2"], state["l1"]
    models = weights.shape[1]
    objective = state["loss"] / state["mass"] + penalty(weights, l2, l1)
    gradient = state["gradient"] / state["mass"][:, None] + l2[:, :, None] * weights
    state["objective"] = objective
    if "at" in state:
        slope, size = state["slope"], state["step"]
        wanted = state["at_objective"] + _ARMIJO * size * slope
        better = objective <= wanted + _NOISE * state["at_objective"].abs()
    else:
        better = torch.ones(models, dtype=torch.bool, device=weights.device)
        state["step"] = torch.ones_like(objective)
        state["slope"] = torch.zeros_like(objective)
        state["direction"] = torch.zeros_like(weights)
        state["at"], state["at_gradient"] = weights, gradient
        state["at_objective"] = objective
    if not exact and not quadratic:
        _remember(state, weights, gradient, better)
    chosen = better[None, :, None]
    state["at"] = torch.where(chosen, weights, state["at"])
    state["at_gradient"] = torch.where(chosen, gradient, state["at_gradient"])
    state["at_objective"] = torch.where(better, objective, state["at_objective"])
    direction, slope = _direction(state)
    shorter = _shorter(state, objective)
    state["direction"] = torch.where(chosen, direction, state["direction"])
    state["slope"] = torch.where(better, slope, state["slope"])
    state["step"] = torch.where(better, torch.ones_like(shorter), shorter)
    gain = -state["slope"] * state["step"] / 2
    state["settled"] = (gain <= _SETTLED * state["at_objective"].abs()).to(torch.float64)
    if quadratic:
        state["settled"] = torch.ones_like(gain)
    state["weights"] = state["at"] + state["step"][None, :, None] * state["direction"]


def _shorter(state: State, objective: Tensor) -> Tensor:
    """A shorter step where the last trial failed: least of the parabola through what is known."""
    size, slope = state["step"], state["slope"]
    rise = objective - state["at_objective"] - slope * size
    least = -slope * size**2 / (2 * rise)
    least = torch.where(torch.isfinite(least), least, size / 10)
    return torch.minimum(torch.maximum(least, size / 10), size / 2)


def _remember(state: State, weights: Tensor, gradient: Tensor, better: Tensor) -> None:
    """Keep the pair of the accepted step; zeros for a model that stays where it is."""
    if not state["direction"].any():
        return  # the first pass: nothing has moved yet
    mask = better[None, :, None].to(weights.dtype)
    moved = ((weights - state["at"]) * mask)[None]
    turned = ((gradient - state["at_gradient"]) * mask)[None]
    if "moved" in state:
        moved = torch.cat([state["moved"], moved])[-HISTORY:]
        turned = torch.cat([state["turned"], turned])[-HISTORY:]
    state["moved"], state["turned"] = moved, turned


def _direction(state: State) -> tuple[Tensor, Tensor]:
    """Each model's way from `at` (D, M, K), and the objective's slope along it (M,)."""
    gradient, at, l1 = state["at_gradient"], state["at"], state["l1"]
    curvature = state["gram"] / state["gram_mass"]
    if l1.any():
        direction = _proximal(curvature, gradient, at, state["l2"], l1) - at
        change = l1[:, :, None] * ((at + direction).abs() - at.abs())
        return direction, (gradient * direction + change).sum(dim=(0, 2))
    direction = -_quasi_newton(state, curvature, gradient)
    slope = (gradient * direction).sum(dim=(0, 2))
    return direction, slope


def _quasi_newton(state: State, curvature: Tensor, gradient: Tensor) -> Tensor:
    """The two loops of L-BFGS, for all models at once."""
    pairs = list(zip(state.get("moved", ()), state.get("turned", ()), strict=True))
    vector = gradient.clone()
    used: list[tuple[Tensor, Tensor]] = []
    for moved, turned in reversed(pairs):
        product = (moved * turned).sum(dim=(0, 2))
        sizes = (moved**2).sum(dim=(0, 2)).sqrt() * (turned**2).sum(dim=(0, 2)).sqrt()
        usable = product > _CURVED * sizes
        rho = torch.where(usable, 1 / torch.where(usable, product, 1.0), 0.0)
        share = rho * (moved * vector).sum(dim=(0, 2))
        vector -= share[None, :, None] * turned
        used.append((share, rho))
    vector = _solve(curvature, state["l2"], vector)
    for (moved, turned), (share, rho) in zip(pairs, reversed(used), strict=True):
        back = rho * (turned * vector).sum(dim=(0, 2))
        vector += (share - back)[None, :, None] * moved
    return vector


def _solve(curvature: Tensor, l2: Tensor, vectors: Tensor) -> Tensor:
    """(S + L2)⁻¹ times each model's vectors (D, M, K)."""
    diagonal = curvature.diagonal()
    # What rounding leaves of a direction in which the data do not vary must not be divided by.
    floor = 1e-10 * diagonal.max().clamp(min=1e-30)
    solved = torch.empty_like(vectors)
    for model in range(vectors.shape[1]):
        matrix = curvature + torch.diag(l2[:, model] + floor)
        factor, failed = torch.linalg.cholesky_ex(matrix)
        while failed:  # rounding has made it indefinite
            floor = floor * 100
            factor, failed = torch.linalg.cholesky_ex(matrix + torch.diag(floor.expand(
                len(matrix)
            )))
        solved[:, model] = torch.cholesky_solve(vectors[:, model], factor)
    return solved


def _proximal(
    curvature: Tensor, gradient: Tensor, at: Tensor, l2: Tensor, l1: Tensor
) -> Tensor:
    """Each model's minimum of g·(v - at) + (v - at)·S·(v - at)/2 with the penalties of v.

    Accelerated proximal gradient with restarts, which is cheap beside a pass over the data.
    """
    l2, l1 = l2[:, :, None], l1[:, :, None]
    # `gradient` has the L2 part at `at` in it already; that part is exact in the model below.
    bound = torch.linalg.eigvalsh(curvature)[-1].clamp(min=1e-30)
    rate = 1 / (bound + l2)
    flat = (len(curvature), -1)
    value, ahead, momentum = at, at, 1.0
    following: Tensor
    for _ in range(_PROXIMAL_STEPS):
        offset = ahead - at
        slope = gradient + (curvature @ offset.reshape(flat)).view_as(at) + l2 * offset
        target = ahead - rate * slope
        following = target.sign() * (target.abs() - rate * l1).clamp(min=0)
        change = following - value
        if (change.abs().max() <= _PROXIMAL_TOLERANCE * (1 + following.abs().max())).item():
            return following
        if ((ahead - following) * change).sum() > 0:
            momentum = 1.0
        faster = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = following + (momentum - 1) / faster * change
        value, momentum = following, faster
    return value
