"""Pipe channels of a run: one FIFO an epoch, made when the one before it has been closed."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from byoa.container.contract import INPUT_DATA_FILE, Layout
from byoa.local.check import training_runs as runs
from byoa.local.check.trial import Trial

_OPEN_SECONDS = 0.02
_BLOCK_BYTES = 64 * 1024


class Feeder(threading.Thread):
    """Feeds one channel for as long as somebody opens its FIFOs (TRAIN-94 … TRAIN-96)."""

    def __init__(self, layout: Layout, name: str, files: list[Path]) -> None:
        super().__init__(name=f"pipe-{name}", daemon=True)
        self.epochs = 0  # that somebody opened
        self._layout, self._channel, self._files = layout, name, files
        self._over = threading.Event()
        os.mkfifo(layout.fifo(name, 0))

    def run(self) -> None:
        while (reader := self._opened(self._layout.fifo(self._channel, self.epochs))) is not None:
            self.epochs += 1
            following = self._layout.fifo(self._channel, self.epochs)
            with contextlib.suppress(BrokenPipeError, FileExistsError):  # it may close early
                try:
                    for block in self._blocks():
                        self._write(reader, block)
                finally:
                    os.close(reader)
                    os.mkfifo(following)

    def _opened(self, fifo: Path) -> int | None:
        """The FIFO's writing end once somebody reads it; None when the run is over."""
        while not self._over.is_set():
            try:
                return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno != errno.ENXIO:  # nobody reads yet
                    return None
            self._over.wait(_OPEN_SECONDS)
        return None

    def _blocks(self) -> Iterator[bytes]:
        for path in self._files:
            with path.open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    yield block

    def _write(self, descriptor: int, block: bytes) -> None:
        view = memoryview(block)
        while view and not self._over.is_set():
            try:
                view = view[os.write(descriptor, view):]
            except BlockingIOError:
                self._over.wait(_OPEN_SECONDS)

    def stop(self) -> None:
        self._over.set()
        self.join(5.0)


def piped_run(trial: Trial) -> tuple[runs.TrainingRun, dict[str, int]]:
    """A run whose Pipe channels are fed, and how many epochs of each were opened."""
    layout = Layout(trial.new_ml())
    runs.without_manifests(layout)
    channels = runs.read_config(layout, INPUT_DATA_FILE)
    feeders = []
    for name in trial.samples.pipe:
        source = trial.new_folder() / name
        layout.channel(name).rename(source)
        files = [source / path for path in runs.left_in(source)]
        channels[name]["TrainingInputMode"] = "Pipe"
        feeders.append(Feeder(layout, name, files))
    runs.write_config(layout, INPUT_DATA_FILE, channels)
    for each in feeders:
        each.start()
    try:
        run = runs.watch(runs.start(trial, layout.root), runs.limit_after(trial, runs.plain(trial)))
    finally:
        for each in feeders:
            each.stop()
    return run, {
        name: each.epochs for name, each in zip(trial.samples.pipe, feeders, strict=True)
    }
