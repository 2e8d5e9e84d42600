"""A directory of a running container kept the same as an S3 prefix: checkpoints, TensorBoard,
intermediate output.

Objects are restored once, before the container starts; new and changed files go up while it runs,
deletions too where the two are to be the same (TRAIN-170, TRAIN-171).
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from byoa.container.contract import CHECKPOINT_IGNORED_SUFFIXES
from byoa.container.errors import ByoaError
from byoa.local.storage.buckets import Buckets, parse_s3_uri
from byoa.local.storage.packing import shown

INTERVAL_SECONDS = 1.0
JOIN_SECONDS = 600.0  # for an upload that is under way

log = logging.getLogger(__name__)

_Mark = tuple[int, int]  # size and modification time in nanoseconds


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
        self._sync(self._scan())
        return list(self._left_out.values())

    def abandon(self) -> None:
        """Stop without uploading what has changed since."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_SECONDS)

    def _loop(self) -> None:
        while not self._ended.wait(self._interval):
            found = self._scan()
            # A file that has not changed for an interval is not being written.
            steady = {name: mark for name, mark in found.items()
                      if self._before.get(name) == mark or self._uploaded.get(name) == mark}
            growing = found.keys() - steady.keys()
            self._before = found
            try:
                self._sync(steady, keep=growing)
            except (ByoaError, OSError) as error:
                log.warning("%s is not synced to S3: %s", self._directory, error)

    def _sync(self, found: dict[str, _Mark], keep: frozenset[str] | set[str] = frozenset()) -> None:
        for name, mark in found.items():
            if self._uploaded.get(name) != mark:
                try:
                    self._buckets.put_file(
                        self._bucket, f"{self._prefix}{name}", self._directory / name
                    )
                except FileNotFoundError:  # replaced or deleted meanwhile: the next round's
                    continue
                self._uploaded[name] = mark
        for name in self._uploaded.keys() - found.keys() - keep if self._deletes else ():
            self._buckets.delete(self._bucket, f"{self._prefix}{name}")
            del self._uploaded[name]

    def _scan(self) -> dict[str, _Mark]:
        if self._directory.resolve() != self._directory:
            # Followed here, a link that the container put in its place would lead anywhere.
            self._left_out.setdefault("", f"not synced: {self._directory.name}: replaced by a link")
            return dict(self._uploaded)
        found = {}
        for folder, _, names in os.walk(self._directory):
            for name in names:
                path = Path(folder, name)
                if name.endswith(CHECKPOINT_IGNORED_SUFFIXES) or not path.is_file():
                    continue
                relative = path.relative_to(self._directory).as_posix()
                if why := self._unfit(path, relative):
                    self._left_out.setdefault(
                        relative, f"not synced: {self._directory.name}/{shown(relative)}: {why}"
                    )
                    continue
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue
                found[relative] = (status.st_size, status.st_mtime_ns)
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
