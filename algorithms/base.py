"""What an author writes: an algorithm that trains, loads what it trained, and predicts.

The same three methods run in a training job, in an endpoint and in a test on the laptop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from byoa.algorithms import hyperparameters as _declared

if TYPE_CHECKING:
    from byoa.container.run import Run


class Algorithm(ABC):
    """One algorithm. Its hyperparameters are declared in a nested class named `Hyperparameters`
    that derives from `Algorithm.Hyperparameters`; without one it has none.

    A fourth method is its author's choice, for streams in both directions:

        def converse(self, model: Any, messages: Messages) -> Iterator[str | bytes]

    is called once for each client that opens one. What it yields is sent as it comes, text or
    bytes; when it returns, the stream ends. It runs on a thread of its own, in turn with `predict`.
    """

    # An alias, not a variable: only so may a nested class name it as its base (mypy, pyright).
    Hyperparameters: TypeAlias = _declared.Hyperparameters

    # Whether `train` knows of other hosts; else a job of several is refused, as each host would
    # train on its own and overwrite the others' model (TRAIN-132).
    distributed: ClassVar[bool] = False

    # Records of several requests that one call of `predict` may be given; 1: each request has a
    # call of its own; None: as many as the server finds worth while.
    max_batch: ClassVar[int | None] = None

    # Numbers of records, ascending, to which calls of `predict` are filled up with repeats: for
    # models that are compiled or tuned for a few shapes.
    batch_buckets: ClassVar[tuple[int, ...]] = ()

    # The metrics that `train` logs; `byoa metrics --definitions` prints their MetricDefinitions.
    metrics: ClassVar[tuple[str, ...]] = ()

    hyperparameters: Any  # an instance of this class's own Hyperparameters

    def __init__(self, hyperparameters: Any) -> None:
        self.hyperparameters = hyperparameters

    @abstractmethod
    def train(self, run: Run) -> None:
        """Read `run.channel(...)`, log `run.metrics`, leave the model in `run.model_dir`."""

    @abstractmethod
    def load(self, model_dir: Path, device: str) -> Any:
        """Read what `train` left; the answer is given to `predict`. `device`: "cpu" or "cuda"."""

    @abstractmethod
    def predict(self, model: Any, records: Any) -> Any:
        """One prediction for each record.

        `records` is float32 of shape (n, features). The answer is an array of shape (n,) or
        (n, k), a list of n items, or named columns of n items each.
        """
