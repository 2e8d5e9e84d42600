"""Directories that all workers of one server see: its loaded models, its adapters, its sessions.

They go when the server ends. One that was killed leaves them, and the next server of this machine
clears them away: each has a file beside it that its server holds locked for as long as it lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from byoa.container import account
from byoa.container.errors import ContractError

_MEMORY = Path("/dev/shm")  # noqa: S108 - what is small and changes often, without a disk
_LOCK = ".lock"
_PLAIN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW  # anybody may have named a FIFO so


class SharedDirectories:
    """`user`: whom they are given to, None for nobody else."""

    def __init__(self, user: account.Account | None) -> None:
        self._user = user
        self._made: list[Path] = []

    def make(self, prefix: str, *, in_memory: bool = False) -> Path:
        """A new directory, where it may be in memory."""
        parent = Path(tempfile.gettempdir())
        if in_memory and os.access(_MEMORY, os.W_OK):
            parent = _MEMORY
        _clear(parent, prefix)
        while True:
            # The descriptor, and with it the lock, is every worker's, too; the kernel closes it.
            descriptor, lock = tempfile.mkstemp(prefix=prefix, suffix=_LOCK, dir=parent)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError:  # this file system has no locks: what looks left over is not to be
                os.unlink(lock)
                break
            if os.path.exists(lock):
                break
            os.close(descriptor)  # another server has just cleared it away
        path = Path(lock.removesuffix(_LOCK))
        self._made.append(path)
        path.mkdir(mode=0o700)
        self._give(path)
        return path

    def of_the_author(self, directory: str) -> str:
        """The author's own directory for sessions, made where it is not there."""
        path = Path(directory)
        try:
            if not path.is_dir():
                path.mkdir(mode=0o700, parents=True)
                self._give(path)
        except OSError as error:
            raise ContractError(
                "SETTING_INVALID", f"SAGEMAKER_SESSIONS_PATH={directory!r}: {error.strerror}",
                expected="a directory, or a place where one can be made",
                remedy="correct the variable, or remove it: then the server makes one",
            ) from None
        return directory

    def remove(self) -> None:
        """Remove what was made here."""
        for path in self._made:
            _remove(path)

    def _give(self, path: Path) -> None:
        if self._user is not None:
            os.chown(path, self._user.uid, self._user.gid)


def _clear(parent: Path, prefix: str) -> None:
    """Remove what servers that were killed have left."""
    for lock in parent.glob(f"{prefix}*{_LOCK}"):
        with contextlib.suppress(OSError):  # of another user, or locked
            descriptor = os.open(lock, _PLAIN)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(lock.with_suffix(""))
            finally:
                os.close(descriptor)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        os.unlink(f"{path}{_LOCK}")
