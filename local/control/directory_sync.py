"""A directory of a running container kept the same as an S3 prefix: checkpoints, TensorBoard,
intermediate output.

Objects are restored once, before the container starts; new and changed files go up while it runs,
deletions too where the two are to be the same (TRAIN-170, TRAIN-171).

A file goes up when it has been the same for an interval, or is of a whole checkpoint of
run.checkpoints, and only if it still is the same when its bytes have been read: what is being
written is not in S3, nor half of what is being replaced. What is left when the container has ended
goes up as it is, but for names that end with `.sagemaker-ignore`, of directories too (TRAIN-173):
whoever is killed while writing under a final name leaves half a file.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import threading
from collections.abc import Callable, Collection
from pathlib import Path

from byoa.container.contract import CHECKPOINT_IGNORED_SUFFIXES as IGNORED
from byoa.container.contract import CHECKPOINT_INDEX
from byoa.container.errors import ByoaError
from byoa.local.storage.buckets import Buckets, ObjectMissing, parse_s3_uri
from byoa.local.storage.packing import shown

INTERVAL_SECONDS = 1.0
# A deletion waits until new files have gone up: the last checkpoint is removed when the next one is
# written, and one of them has to be in S3. No longer, for a file may grow for ever.
DELETION_ROUNDS = 60
JOIN_SECONDS = 600.0  # for an upload that is under way

log = logging.getLogger(__name__)

_Mark = tuple[int, int, int]  # size, modification time in nanoseconds, inode


class _Changed(Exception):
    """The file is not the one any more whose bytes were read."""


class DirectorySync:
    """Syncs `directory` to `uri`; the URI is used as given (TRAIN-175). Without `deletes`, what the
    container removes stays in S3."""

    def __init__(
        self,
        buckets: Buckets,
        uri: str,
        directory: Path,
        *,
        deletes: bool = True,
        interval: float = INTERVAL_SECONDS,
    ) -> None:
        self._buckets = buckets
        self._bucket, prefix = parse_s3_uri(uri)
        self._prefix = prefix if not prefix or prefix.endswith("/") else f"{prefix}/"
        self._directory = directory  # by its real path
        self._deletes = deletes
        self._interval = interval
        self._left_out: dict[str, str] = {}
        self._uploaded: dict[str, _Mark] = {}
        self._before: dict[str, _Mark] = {}
        self._waited = 0  # rounds that a deletion has waited
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="sync", daemon=True)

    def restore(self, check: Callable[[], None]) -> None:
        """Copy what is under the prefix into the directory; `check` may raise between objects."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for each in self._buckets.keys(self._bucket, self._prefix):
            rest = each.key[len(self._prefix):]
            parts = rest.split("/")
            if not rest or rest.endswith("/") or any(part in ("", ".", "..") for part in parts):
                continue  # a folder's marker, or a key that is no path
            check()
            with contextlib.suppress(ObjectMissing):  # deleted since it was listed
                self._buckets.materialise(self._bucket, each.key, self._directory / rest)
        self._uploaded = self._scan()

    def resume(self) -> None:
        """Go on where an earlier server left off: what S3 has newer is not uploaded again, for
        another host of the job may have written it since (TRAIN-172)."""
        for name, mark in self._scan().items():
            kept = self._buckets.stat(self._bucket, f"{self._prefix}{name}")
            if kept is not None and kept.modified * 1e9 >= mark[1]:
                self._uploaded[name] = mark

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> list[str]:
        """Upload what has changed since, finished or not; what had to be left out.

        Raises ByoaError or OSError when it cannot."""
        self.abandon()
        found = self._scan()
        self._upload(found)
        self._delete(found)
        return list(self._left_out.values())

    def abandon(self) -> None:
        """Stop without uploading what has changed since."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_SECONDS)

    def _loop(self) -> None:
        while not self._ended.wait(self._interval):
            found = self._scan()
            whole = {name.rpartition("/")[0] for name in found
                     if name.rpartition("/")[2] == CHECKPOINT_INDEX}
            # A file that has not changed for an interval is not being written; nor is one of a
            # whole checkpoint, which the next one may replace before the interval is over.
            steady = {name: mark for name, mark in found.items()
                      if self._before.get(name) == mark or self._uploaded.get(name) == mark
                      or name.rpartition("/")[0] in whole}
            growing = found.keys() - steady.keys()
            self._before = found
            try:
                self._upload(steady)
                self._delete(found, new=growing - self._uploaded.keys())
            except (ByoaError, OSError) as error:
                log.warning("%s is not synced to S3: %s", self._directory, error)

    def _upload(self, found: dict[str, _Mark]) -> None:
        for name, mark in found.items():
            if self._uploaded.get(name) == mark:
                continue
            path = self._directory / name

            def unchanged(_: object, path: Path = path, mark: _Mark = mark) -> None:
                if _mark(path) != mark:
                    raise _Changed

            try:
                self._buckets.put_file(
                    self._bucket, f"{self._prefix}{name}", path, condition=unchanged
                )
            except (OSError, _Changed):
                if _mark(path) == mark:
                    raise
                continue  # replaced, deleted or cut short meanwhile: the next round's
            self._uploaded[name] = mark

    def _delete(self, found: dict[str, _Mark], new: Collection[str] = ()) -> None:
        """Delete what is gone, unless `new` files are to go up first."""
        if not self._deletes:
            return
        gone = self._uploaded.keys() - found.keys()
        self._waited = self._waited + 1 if gone and new else 0
        if new and self._waited < DELETION_ROUNDS:
            return
        for name in gone:
            self._buckets.delete(self._bucket, f"{self._prefix}{name}")
            del self._uploaded[name]

    def _scan(self) -> dict[str, _Mark]:
        if self._directory.resolve() != self._directory:
            # Followed here, a link that the container put in its place would lead anywhere.
            self._left_out.setdefault("", f"not synced: {self._directory.name}: replaced by a link")
            return dict(self._uploaded)
        found = {}
        for folder, folders, names in os.walk(self._directory):
            folders[:] = [each for each in folders if not each.endswith(IGNORED)]
            for name in names:
                path = Path(folder, name)
                if name.endswith(IGNORED):
                    continue
                relative = path.relative_to(self._directory).as_posix()
                if why := self._unfit(path, relative):
                    self._left_out.setdefault(
                        relative, f"not synced: {self._directory.name}/{shown(relative)}: {why}"
                    )
                    continue
                if (mark := _mark(path)) is not None:
                    found[relative] = mark
        return found

    def _unfit(self, path: Path, relative: str) -> str | None:
        # It would be this machine's file, not the container's.
        if path.is_symlink() and not path.resolve().is_relative_to(self._directory):
            return f"a link to {shown(os.readlink(path))}, outside the directory"
        try:
            relative.encode()
        except UnicodeEncodeError:
            return "no UTF-8, as an object's key has to be"
        return None


def _mark(path: Path) -> _Mark | None:
    """What tells a file from what it was and will be; None where there is no regular file."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino
