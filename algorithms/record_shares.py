"""Which records of each step are whose, when several processes train together.

Replicated data: every process draws the same order and takes its own part of each step, so that a
step has the records that it would have on one host. Divided data (ShardedByS3Key, TRAIN-100): each
takes an even part of its own records, which may be none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Shares:
    """`counts` are the records of each process: its own where `divided`, else the same ones."""

    counts: tuple[int, ...]
    rank: int
    divided: bool
    batch: int  # records of a step, of all processes together

    @property
    def total(self) -> int:
        return sum(self.counts) if self.divided else self.counts[0]

    @property
    def steps(self) -> int:
        return math.ceil(self.total / self.batch)

    def order(self, seed: int, epoch: int) -> Tensor:
        """This epoch's order of the records that this process holds."""
        state = seed_of(seed, epoch, 1 + self.rank if self.divided else 0)
        generator = torch.Generator().manual_seed(state)
        return torch.randperm(self.counts[self.rank], generator=generator)

    def of(self, order: Tensor, step: int) -> tuple[Tensor, int]:
        """This process's records of a step, and how many all have in it."""
        if not self.divided:
            chosen = order[step * self.batch : (step + 1) * self.batch]
            return chosen[self.rank :: len(self.counts)], len(chosen)
        sizes = [self._cut(count, step + 1) - self._cut(count, step) for count in self.counts]
        start = self._cut(self.counts[self.rank], step)
        return order[start : start + sizes[self.rank]], sum(sizes)

    def _cut(self, count: int, step: int) -> int:
        return step * count // self.steps


def seed_of(seed: int, epoch: int, stream: int) -> int:
    """A seed of its own for each epoch and stream: a training that is resumed needs no state."""
    state = np.random.SeedSequence([seed, epoch, stream]).generate_state(1, np.uint64)
    return int(state[0]) & (2**63 - 1)
