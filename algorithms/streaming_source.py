"""A channel as prepared batches, pass after pass: read each time, or kept where memory allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from itertools import chain
from typing import Any

from byoa.algorithms.array_state import State
from byoa.algorithms.streaming import Origin, StreamingAlgorithm
from byoa.container.channels import Channel
from byoa.container.errors import DataError
from byoa.container.formats.base import Batch, place
from byoa.container.formats.checks import require_finite, require_width
from byoa.container.hardware import Hardware, size
from byoa.container.run import Run

_KEPT_SHARE = 0.4  # of the memory, for all channels together
_PIPE = "Pipe"


class Room:
    """The memory that a training's kept batches may take, of all its channels together."""

    def __init__(self, hardware: Hardware, device: str) -> None:
        self.bytes = int(_KEPT_SHARE * _memory(hardware, device))
        self.left = self.bytes

    def take(self, count: int) -> bool:
        """Whether there is room for `count` bytes, which then are taken."""
        if count > self.left:
            return False
        self.left -= count
        return True

    def give(self, count: int) -> None:
        self.left += count


class Source:
    """This host's share of one channel."""

    def __init__(
        self, algorithm: StreamingAlgorithm, channel: Channel, run: Run, room: Room
    ) -> None:
        self.channel = channel
        self._algorithm = algorithm
        self._peers = run.peers
        self._run = run
        self._first: Iterator[Batch] | None = None  # the pass that `sample` has opened
        self._width: int | None = None
        # A pipe is for data beyond the memory: nothing of it is kept.
        self._kept: list[Any] | None = None if channel.config.input_mode == _PIPE else []
        self._kept_bytes = 0
        self._whole = False  # whether all batches are kept
        self._room = room

    def sample(self, records: int) -> Batch | None:
        """At least the first `records` of the first pass, or all; the pass still begins there.
        None where a stop came before the first one."""
        opened = self._read(0)
        taken: list[Batch] = []
        while sum(len(batch.features) for batch in taken) < records:
            batch = next(opened, None)
            if batch is None:
                break
            taken.append(batch)
        if not taken and self._run.stopping:
            return None
        if not taken:
            raise DataError(
                "CHANNEL_EMPTY", f"channel {self.channel.name!r} has no record for this host",
                expected="at least one record a host",
            )
        self._first = chain(iter(taken), opened)
        return taken[0] if len(taken) == 1 else _joined(taken)

    def batches(self, state: State, epoch: int, skip: int = 0) -> Iterator[Any]:
        """The batches of a pass as the algorithm prepares them, from number `skip`, from 0."""
        if self._whole and self._kept is not None:
            yield from self._kept[skip:]
            return
        if self._kept is not None:
            self._drop(self._kept)
        opened = self._first if epoch == 0 and self._first is not None else self._read(epoch)
        self._first = None
        first = 1
        for number, batch in enumerate(opened):
            if self._kept is None and number < skip:
                first += len(batch.features)
                continue
            prepared = self._prepared(state, batch, Origin(self.channel.name, first))
            first += len(batch.features)
            if self._kept is not None:
                # What cannot be seen into is taken to be as large as what it was made of.
                self._keep(self._kept, prepared, max(_bytes(prepared), _bytes(batch)))
            if number >= skip:
                yield prepared
        self._whole = self._kept is not None

    def _keep(self, kept: list[Any], prepared: Any, count: int) -> None:
        if self._room.take(count):
            kept.append(prepared)
            self._kept_bytes += count
            return
        self._drop(kept)
        self._kept = None
        print(
            f"channel {self.channel.name}: all channels have more than {size(self._room.bytes)} of"
            " prepared records; those of this one are read anew in each pass", flush=True,
        )

    def _drop(self, kept: list[Any]) -> None:
        kept.clear()
        self._room.give(self._kept_bytes)
        self._kept_bytes = 0

    def _prepared(self, state: State, batch: Batch, origin: Origin) -> Any:
        self._width = self._width or batch.features.shape[1]
        require_width(batch.features, self._width, self.channel.name)
        if self._algorithm.finite:
            where = f"{self.channel.name} (features)"
            require_finite(batch.features, where, first_record=origin.first)
            if batch.labels is not None:
                labels = batch.labels.reshape(len(batch.features), -1)
                where = f"{self.channel.name} (labels)"
                require_finite(labels, where, first_record=origin.first)
        return self._algorithm.prepare(state, batch, origin)

    def _read(self, epoch: int) -> Iterator[Batch]:
        return self.channel.batches(
            self._algorithm.batch_size,
            epoch=epoch,
            label_size=self._algorithm.label_size,
            rank=self._peers.rank,
            ranks=self._peers.size,
        )


def _memory(hardware: Hardware, device: str) -> int:
    """Of where prepared batches lie."""
    if device == "cuda" and hardware.gpus and hardware.gpus[0].memory_bytes:
        return hardware.gpus[0].memory_bytes
    return hardware.memory_bytes


def _bytes(prepared: Any) -> int:
    """Of the arrays and tensors in it."""
    if isinstance(prepared, Mapping):
        return sum(_bytes(each) for each in prepared.values())
    if isinstance(prepared, (tuple, list)):
        return sum(_bytes(each) for each in prepared)
    if is_dataclass(prepared):
        return sum(_bytes(each) for each in vars(prepared).values())
    return int(getattr(prepared, "nbytes", 0))


def _joined(batches: list[Batch]) -> Batch:
    import numpy as np

    widths = {batch.features.shape[1] for batch in batches}
    if len(widths) > 1:
        raise DataError(
            "RECORD_WIDTH", f"records have {sorted(widths)} features", where=place("train"),
            expected="records of one width in a channel",
        )
    labels = [batch.labels for batch in batches if batch.labels is not None]
    return Batch(
        np.concatenate([batch.features for batch in batches]),
        np.concatenate(labels) if labels else None,
    )
