"""The training of a streaming algorithm: passes, hosts, checkpoints, measurements, the model."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from byoa.algorithms import array_state
from byoa.algorithms.array_state import State
from byoa.algorithms.earlier_model import load_earlier
from byoa.algorithms.streaming import MODEL, StreamingAlgorithm
from byoa.algorithms.streaming_source import Room, Source
from byoa.container.errors import AlgorithmError
from byoa.container.run import Run

TRAIN, VALIDATION, TEST, EARLIER = "train", "validation", "test", "model"
_CHECKPOINT_SECONDS = 60.0  # between checkpoints inside of a pass
_STATE = "state"
_PROGRESS = "progress.json"


class _Stopped(Exception):
    """Goes through an algorithm's `measure` when the job is asked to stop."""


@dataclass
class _Progress:
    """How far a training is; saved with each checkpoint."""

    epoch: int = 0  # passes that are complete
    batch: int = 0  # batches of the next pass that are taken in
    updates: int = 0  # batches in all
    measuring: bool = False  # `validation` is not yet measured after the last pass
    finished: bool = False  # `go_on` said that it is enough


class Training:
    """One training, from its channels to the saved model."""

    def __init__(self, algorithm: StreamingAlgorithm, run: Run) -> None:
        self.algorithm = algorithm
        self.run = run
        self.peers = run.peers
        self.progress = _Progress()
        algorithm.run = run
        room = Room(run.hardware, run.device)
        self.sources = {
            name: Source(algorithm, run.channel(name), run, room)
            for name in (TRAIN, VALIDATION, TEST)
            if name == TRAIN or name in run.channels
        }
        self.state = self._resumed() or self._initial()
        algorithm.epoch = self.progress.epoch
        self.saved_at = time.monotonic()

    def train(self) -> None:
        stopped = self._passes() if self.state else True
        if self.progress.updates == 0:
            return  # stopped before it has seen a record: there is no model
        if not stopped and VALIDATION not in self.sources and self.algorithm.measures_train:
            stopped = self._measure(TRAIN) is None
        if self.peers.rank == 0:
            array_state.write(self.run.model_dir, MODEL, self.algorithm.finalize(self.state))
        if not stopped and TEST in self.sources:
            self._measure(TEST)

    # --- passes -------------------------------------------------------------------------------

    def _passes(self) -> bool:
        """Pass over the data until it is enough; true when asked to stop before that."""
        progress, algorithm = self.progress, self.algorithm
        while progress.measuring or (progress.epoch < algorithm.epochs and not progress.finished):
            if not progress.measuring:
                if progress.batch == 0:
                    algorithm.begin(self.state, self.peers.rank == 0)
                if self._pass():
                    print(f"stopped in pass {progress.epoch + 1}", flush=True)
                    return True
                progress.epoch += 1
                algorithm.epoch = progress.epoch
                algorithm.end(self.state)
                progress.batch = 0
                progress.measuring = VALIDATION in self.sources
            scores = self._measure(VALIDATION) if progress.measuring else {}
            if scores is None:
                self._save()
                return True
            progress.measuring = False
            progress.finished = not algorithm.go_on(self.state, scores)
            self._save()
        return False

    def _pass(self) -> bool:
        """One pass over this host's share, merged over all; true when one was asked to stop."""
        progress, stopped = self.progress, False
        source = self.sources[TRAIN]
        for batch in source.batches(self.state, progress.epoch, skip=progress.batch):
            if self.run.stopping:
                stopped = True
                break
            self.algorithm.update(self.state, batch)
            progress.batch += 1
            progress.updates += 1
            if time.monotonic() - self.saved_at > _CHECKPOINT_SECONDS:
                self._save_inside()
        stopped = stopped or self.run.stopping  # then a pipe ends where it would have to wait
        if stopped:
            self._save_inside()
        return self._merge(stopped)

    def _merge(self, stopped: bool) -> bool:
        if self.peers.size == 1:
            return stopped
        progress = {"/stopped": stopped, "/updates": self.progress.updates}
        states = [
            array_state.unpack(message)
            for message in self.peers.all_gather(array_state.pack({**self.state, **progress}))
        ]
        stopped = any([state.pop("/stopped") for state in states])
        self.progress.updates = max([state.pop("/updates") for state in states])
        self.state = self.algorithm.restore(states[0])  # the same bits on every host
        for other in states[1:]:
            self.algorithm.merge(self.state, self.algorithm.restore(other))
        return stopped

    def _measure(self, channel: str) -> Mapping[str, float] | None:
        """Measure the hosts' shares of a channel and log the metrics; None when asked to stop
        before all is measured."""
        stopped, part = False, None
        try:
            part = self.algorithm.measure(self.state, self._measured(channel), channel)
        except _Stopped:
            stopped = True
        if part is None and not stopped:
            return {}
        parts = [part or {}]
        if self.peers.size > 1:
            messages = self.peers.all_gather(array_state.pack({**parts[0], "/stopped": stopped}))
            parts = [array_state.unpack(message) for message in messages]
            stopped = any([part.pop("/stopped") for part in parts])
        if stopped:
            print(f"stopped in measuring {channel} after pass {self.progress.epoch}", flush=True)
            return None
        scores = self.algorithm.score(self.state, parts, channel)
        for name, value in scores.items():
            self.run.metrics.log(f"{channel}:{name}", value, self.progress.epoch)
        return scores

    def _measured(self, channel: str) -> Iterator[Any]:
        for batch in self.sources[channel].batches(self.state, self.progress.epoch):
            if self.run.stopping:
                raise _Stopped
            yield batch
        if self.run.stopping:  # then a pipe may have ended before its records did
            raise _Stopped

    # --- the first state ----------------------------------------------------------------------

    def _initial(self) -> State:
        """Empty where a stop came before the first record."""
        state: State = {}
        if self.peers.rank == 0:
            sample = self.sources[TRAIN].sample(self.algorithm.sample_size)
            if sample is not None:
                kept = EARLIER in self.run.channels
                earlier = load_earlier(self.algorithm, self.run) if kept else None
                state = self.algorithm.init(sample, earlier)
        return self._shared(state)

    def _shared(self, state: State) -> State:
        """The first host's state, on every host."""
        if self.peers.size == 1:
            return state
        mine = array_state.pack(state) if self.peers.rank == 0 else None
        return self.algorithm.restore(array_state.unpack(self.peers.broadcast(mine)))

    # --- checkpoints --------------------------------------------------------------------------

    def _resumed(self) -> State | None:
        """The newest checkpoint's state (TRAIN-174); on several hosts the first one's, for all."""
        message = b""
        if self.peers.rank == 0:
            checkpoint = self.run.checkpoints.latest()
            if checkpoint is not None:
                found = json.loads((checkpoint.path / _PROGRESS).read_text(encoding="utf-8"))
                self._check(found["of"], checkpoint.path)
                state = array_state.read(checkpoint.path, _STATE)
                message = array_state.pack({**state, "/found": found})
        if self.peers.size > 1:
            message = self.peers.broadcast(message if self.peers.rank == 0 else None)
        if not message:
            return None
        state = array_state.unpack(message)
        found = state.pop("/found")
        self.progress = _Progress(**found["progress"])
        self.run.signature.update(found["signature"])
        inside = f", batch {self.progress.batch} of the next" if self.progress.batch else ""
        print(f"resumes after pass {self.progress.epoch}{inside}", flush=True)
        return self.algorithm.restore(state)

    def _check(self, found: Mapping[str, Any], path: Path) -> None:
        wanted = self._identity()
        other = [name for name in wanted | dict(found) if wanted.get(name) != found.get(name)]
        if other:
            raise AlgorithmError(
                "CHECKPOINT_OF_ANOTHER_TRAINING",
                "the checkpoint is of a training with "
                + ", ".join(f"{name}={found.get(name)}" for name in other),
                where=str(path),
                expected=", ".join(f"{name}={wanted.get(name)}" for name in other),
                remedy="give the job a CheckpointConfig.S3Uri of its own",
            )

    def _identity(self) -> dict[str, Any]:
        """What a checkpoint must have in common with this training: all but the passes."""
        values = self.run.hyperparameters.to_json() | {"hosts": self.peers.size}
        return {name: value for name, value in values.items() if name != "epochs"}

    def _save_inside(self) -> None:
        """Inside of a pass the hosts' states differ: on several, only the ends of passes are
        saved. Before the first batch of a pass the end of the last one says it all."""
        if self.peers.size == 1 and self.progress.batch:
            self._save()

    def _save(self) -> None:
        if self.peers.rank == 0:
            self.run.checkpoints.save(self._write, self.progress.updates)
        self.saved_at = time.monotonic()

    def _write(self, directory: Path) -> None:
        array_state.write(directory, _STATE, self.state)
        document = {
            "of": self._identity(), "progress": asdict(self.progress),
            "signature": self.run.signature,
        }
        (directory / _PROGRESS).write_text(json.dumps(document), encoding="utf-8")
