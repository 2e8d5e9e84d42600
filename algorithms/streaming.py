"""Streaming algorithms: a state far smaller than the data, updated a batch at a time.

What an author writes, besides `predict`:

    init(sample, earlier)    the state before the first batch
    update(state, batch)     take one batch in
    merge(state, other)      take in what another host has made of its share of the data
    finalize(state)          the model, as named arrays and scalars

The rest is done here, once: passes over the channel `train` in File, FastFile and Pipe mode with
memory that does not depend on the data; checkpoints, in the middle of a pass too, from which an
interrupted training ends bit for bit as an uninterrupted one (TRAIN-174); the end within a batch
after SIGTERM (TRAIN-151); one share of the data a host, one model from the first (TRAIN-132);
incremental training from the channel `model`; metrics of `validation` after each pass and of `test`
at the end.

A state is a dict of arrays (tensors too) and of scalars that JSON can carry. Five families of
algorithms and what each keeps in it:

    linear-learner    weights of all models. By gradient steps: `update` steps, `merge` averages by
                      records seen. By statistics: `update` adds loss, gradient and curvature,
                      `begin` clears them, `merge` adds them, `end` solves for the next weights.
    kmeans            more centres than are asked for, each with the weight it has attracted.
                      `init` draws them from the sample, `update` moves the nearest ones, `merge`
                      puts the hosts' weighted centres side by side, `finalize` clusters those by
                      Lloyd's method into k.
    pca               records, sum and sum of outer products (or of a random projection). All are
                      added in `update` and `merge`; one eigendecomposition in `finalize`.
    random cut forest a reservoir of records for each tree, with how many were offered. `update`
                      offers a batch to each, `merge` draws from two reservoirs in proportion to
                      what they were offered, `finalize` builds the trees.
    factorization     bias, linear weights and factors, and the records seen. `update` takes a
    machines          gradient step, `merge` averages by records, several passes, early stopping
                      through `go_on`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from byoa.algorithms import array_state
from byoa.algorithms.array_state import State
from byoa.algorithms.base import Algorithm

if TYPE_CHECKING:
    from byoa.container.formats.base import Batch
    from byoa.container.run import Run

MODEL = "model"  # the model's files are model.npz and model.json


@dataclass(frozen=True)
class Origin:
    """Where a batch comes from, for errors: its channel, and the number of its first record as
    this host reads them, from 1."""

    channel: str
    first: int = 1

    def record(self, index: int) -> str:
        """The place of the batch's record `index`, from 0."""
        return f"{self.channel} record {self.first + index}"


class StreamingAlgorithm(Algorithm):
    """Derive from it, write the four methods and `predict`; override hooks where they are needed.

    Methods run on every host with the same state before a pass and after a merge, so what they
    decide from it alone is the same everywhere.
    """

    distributed = True
    # Leading label columns of a channel whose ContentType does not say; None: 1, as everywhere.
    label_size: ClassVar[int | None] = None
    # Whether records have to be finite numbers.
    finite: ClassVar[bool] = True
    # Whether `train` is measured after the last pass where there is no channel `validation`.
    measures_train: ClassVar[bool] = False

    run: Run  # set before `init`
    epoch: int  # passes that are complete, for `run.metrics.log`

    # --- to write -----------------------------------------------------------------------------

    @abstractmethod
    def init(self, sample: Batch, earlier: Any) -> State:
        """The state before the first batch.

        `sample` is at least the first `sample_size` records, or all; they come to `update` as
        well. `earlier` is what `load` makes of the model in the channel `model`, None without it.
        On several hosts the first one's answer is everybody's.
        """

    @abstractmethod
    def update(self, state: State, batch: Any) -> None:
        """Take in one batch, as `prepare` gave it."""

    @abstractmethod
    def merge(self, state: State, other: State) -> None:
        """Take into `state` what another host has at the end of the same pass."""

    @abstractmethod
    def finalize(self, state: State) -> Mapping[str, Any]:
        """The model: named arrays and scalars. `state` is left as it is; after a stop it is that
        of a pass not yet over."""

    def train(self, run: Run) -> None:
        from byoa.algorithms.streaming_training import Training  # not for who only declares

        Training(self, run).train()

    def load(self, model_dir: Path, device: str) -> Any:
        """What `finalize` gave, as a dict."""
        return array_state.read(model_dir, MODEL)

    # --- sizes --------------------------------------------------------------------------------

    @property
    def epochs(self) -> int:
        """Passes over the data, at most: the hyperparameter of that name, else 1."""
        return int(getattr(self.hyperparameters, "epochs", 1))

    @property
    def batch_size(self) -> int:
        """Records a batch: the hyperparameter `mini_batch_size`, else 1,000."""
        return int(getattr(self.hyperparameters, "mini_batch_size", 1000))

    @property
    def sample_size(self) -> int:
        """Records that `init` wants to see."""
        return self.batch_size

    # --- hooks --------------------------------------------------------------------------------

    def prepare(self, state: State, batch: Batch, origin: Origin) -> Any:
        """What `update` and `measure` take of a batch. Where memory allows it is kept for the
        next passes, so conversion, normalization and the way to a GPU are paid for once."""
        return batch

    def begin(self, state: State, lead: bool) -> None:
        """Before a pass. What `merge` adds up must not be there once for each host: clear it, or
        keep it where `lead` is true, which it is on one host."""

    def end(self, state: State) -> None:
        """After a pass, with all hosts merged."""

    def measure(self, state: State, batches: Iterable[Any], channel: str) -> State | None:
        """This host's part of a measurement of `channel`; None, then on every host: nothing is
        measured. A stop goes through it as an exception that the next batch raises."""
        return None

    def score(self, state: State, parts: Sequence[State], channel: str) -> Mapping[str, float]:
        """The metrics of a channel, out of all hosts' parts. They are logged as channel:name."""
        return {}

    def go_on(self, state: State, scores: Mapping[str, float]) -> bool:
        """Whether another pass is worth it; `scores` are those of `validation`. Early stopping."""
        return True

    def restore(self, state: State) -> State:
        """A state that comes from a checkpoint or another host, its arrays being numpy's."""
        return state
