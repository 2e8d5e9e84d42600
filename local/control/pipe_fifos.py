"""The FIFOs of one host's Pipe channels, in a directory that the container may write to, too.

A container's root could put a link to anywhere in the place of a FIFO or of the directory: the
directory is therefore held open, and only what is a FIFO is opened.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from byoa.container.contract import Layout

MODE = 0o644  # as everything that the platform puts there (TRAIN-08)
_AT = os.mkfifo in os.supports_dir_fd  # not in an old macOS, whose containers are processes


class NoFifo(Exception):
    """Something else has this name."""


class Fifos:
    """Makes, opens and removes FIFOs of `layout.data`; `close` it."""

    def __init__(self, layout: Layout) -> None:
        self._directory = _open_below(layout.root, layout.data)
        self._layout = layout

    def name(self, channel: str, epoch: int) -> str:
        """Of an epoch's FIFO (TRAIN-94)."""
        return self._layout.fifo(channel, epoch).name

    def make(self, name: str) -> None:
        """Make a FIFO; one that is there already is taken. Raises NoFifo or OSError."""
        try:
            os.mkfifo(self._at(name), MODE, dir_fd=self._directory if _AT else None)
        except FileExistsError:
            self._check(name)

    def open(self, name: str) -> int | None:
        """The end to write to, without blocking; None while nobody reads. Raises NoFifo, OSError.

        A FIFO that the container has removed is made again.
        """
        try:
            self._check(name)
            opened = os.open(
                self._at(name), os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC,
                dir_fd=self._directory,
            )
        except FileNotFoundError:
            self.make(name)
            return None
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            raise
        if not stat.S_ISFIFO(os.fstat(opened).st_mode):
            os.close(opened)
            raise NoFifo(name)
        return opened

    def remove(self, name: str) -> None:
        """Remove what has this name, if it can be."""
        with contextlib.suppress(OSError):
            os.unlink(self._at(name), dir_fd=self._directory)

    def close(self) -> None:
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1

    def _check(self, name: str) -> None:
        status = os.stat(self._at(name), dir_fd=self._directory, follow_symlinks=False)
        if not stat.S_ISFIFO(status.st_mode):
            raise NoFifo(name)

    def _at(self, name: str) -> str | Path:
        return name if _AT else self._layout.data / name


def _open_below(root: Path, directory: Path) -> int:
    """A descriptor of `directory`; no link on the way from `root` is followed."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    opened = os.open(root, flags)
    for name in directory.relative_to(root).parts:
        inner = -1
        try:
            inner = os.open(name, flags, dir_fd=opened)
        finally:
            os.close(opened)
        opened = inner
    return opened
