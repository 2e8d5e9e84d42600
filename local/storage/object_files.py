"""Finding an object's file, and making the index follow what a person does in the folder.

The row says where the file is and which file it was (inode, mtime); the file has the last word.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat as stat_
from pathlib import Path

from byoa.local.storage import files
from byoa.local.storage.object_index import Index, ObjectInfo, after_prefix

__all__ = ["KEY_LIMIT_BYTES", "ObjectFiles", "valid_bucket_name"]

KEY_LIMIT_BYTES = 1024
OPEN_ATTEMPTS = 20

_BUCKET_NAME = re.compile(
    r"(?!\d+\.\d+\.\d+\.\d+$)(?!xn--)(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
)


def valid_bucket_name(name: str) -> bool:
    """AWS's rules: 3 to 63 of a-z, 0-9, '.', '-'; no address, no '..', ends alphanumeric."""
    return _BUCKET_NAME.fullmatch(name) is not None


class ObjectFiles:
    """The files below `root` (the buckets) and `side` (keys that no path can say)."""

    def __init__(self, root: Path, side: Path, index: Index) -> None:
        self.root = root
        self.side = side
        self.index = index
        self._folds_case = (side / "TEMP").exists()  # as macOS's filesystem does
        self._real_directories: set[str] = set()

    def forget_directories(self) -> None:
        """Directories were removed: look again before trusting one of these names."""
        self._real_directories.clear()

    def stat(self, bucket: str, key: str) -> ObjectInfo | None:
        """The object, None when there is none."""
        found = self.open(bucket, key)
        if found is None:
            return None
        os.close(found[1])
        return found[0]

    def open(self, bucket: str, key: str) -> tuple[ObjectInfo, int] | None:
        """The object and a descriptor of exactly those bytes, which the caller closes."""
        for attempt in range(OPEN_ATTEMPTS):
            # A second look is alone: the first may have come between a rename and its commit.
            with self.index.writing() if attempt else contextlib.nullcontext():
                info = self.index.get(bucket, key)
                found = self._open(bucket, key, info)
                if found is None and info is None:
                    return None
                if found is None and attempt:
                    self.index.remove(bucket, key)  # a person removed the file
                    return None
            if found is None:
                continue
            fd, identity = found
            if info is not None and identity == info.identity:
                return info, fd
            if attempt:
                info = self._learn(bucket, key, fd, info)
                if info is not None:
                    return info, fd
            os.close(fd)
        raise OSError(errno.EBUSY, "the object's file keeps changing", f"{bucket}/{key}")

    def _learn(
        self, bucket: str, key: str, fd: int, before: ObjectInfo | None
    ) -> ObjectInfo | None:
        """Index a file that a person put there or changed; None when it changed meanwhile."""
        try:
            status = os.fstat(fd)
            info = (before or ObjectInfo(key, 0, "", 0.0)).with_(
                size=status.st_size,
                etag=files.md5_of(fd),
                modified=status.st_mtime,
                checksums={},
                parts=(),
                identity=files.identity(status),
            )
            with self.index.writing():
                again = self._open(bucket, key, before)
                if again is None:
                    return None
                os.close(again[0])
                if again[1] != info.identity or self.index.get(bucket, key) != before:
                    return None
                self.index.put(bucket, info)
            return info
        except BaseException:
            os.close(fd)
            raise

    def _open(
        self, bucket: str, key: str, info: ObjectInfo | None
    ) -> tuple[int, tuple[int, int]] | None:
        """A descriptor of the file that the row, or without one the key's path, names."""
        path = self.path(bucket, key, info)
        if path is None:
            return None
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
                return None
            raise
        status = os.fstat(fd)
        if not stat_.S_ISREG(status.st_mode) or (
            info is None and not self._is_own_file(bucket, path)  # what a person dropped
        ):
            os.close(fd)
            return None
        return fd, files.identity(status)

    def path(self, bucket: str, key: str, info: ObjectInfo | None) -> Path | None:
        """Where the object is by its row; without one, where its key says, if it says so."""
        plain = files.plain_path(key)
        if info is not None and info.odd:
            return self.side / "odd" / bucket / files.odd_name(key)
        return None if plain is None else self.root / bucket / plain

    def _is_own_file(self, bucket: str, path: Path) -> bool:
        if not valid_bucket_name(bucket):
            return False
        if self._folds_case and path.name not in os.listdir(path.parent):
            return False  # `Data.csv` answers to `data.csv` as well, but is not that key
        return self._is_own_directory(bucket, path.parent)

    def _is_own_directory(self, bucket: str, directory: Path) -> bool:
        """No link on the way leads out of the bucket; looked at once for each directory."""
        if str(directory) in self._real_directories:
            return True
        base = os.path.realpath(self.root / bucket)
        real = os.path.realpath(directory)
        expected = os.path.join(base, os.path.relpath(directory, self.root / bucket))
        if real != os.path.normpath(expected):
            return False
        if os.path.isdir(real):
            self._real_directories.add(str(directory))
        return True

    def adopt(self, bucket: str, prefix: str = "") -> None:
        """Make the index agree with what a person did to the files below `prefix`."""
        folder = prefix.rpartition("/")[0]
        if folder and files.plain_path(folder) is None:
            return
        top = self.root / bucket / folder if folder else self.root / bucket
        there = {(key, inode) for key, inode in files.walk(top, folder) if key.startswith(prefix)}
        known = self.index.plain_keys(bucket, prefix, after_prefix(prefix)).items()
        # Nearly every call finds nothing; `stat` decides, alone, what became of a difference.
        for key in {key for key, _ in there ^ known}:
            if files.plain_path(key) is not None and 0 < len(key.encode()) <= KEY_LIMIT_BYTES:
                self.stat(bucket, key)

    def current(self, bucket: str, key: str) -> ObjectInfo | None:
        """The object before a change, None when there is none."""
        info = self.index.get(bucket, key)
        found = self._open(bucket, key, info)
        if found is None:
            return None
        os.close(found[0])
        if info is not None and info.identity == found[1]:
            return info
        return self.stat(bucket, key)

    def place(
        self, bucket: str, key: str, source: Path, old: ObjectInfo | None
    ) -> tuple[bool, Path]:
        """Rename `source` to the key's place; returns whether that is in the side area, and it."""
        plain = files.plain_path(key)
        if plain is not None and not (old is not None and old.odd):
            target = self.root / bucket / plain
            taken = old is None and os.path.lexists(target) and not target.is_dir()
            if not taken and self._is_own_directory(bucket, target.parent):
                # Another key may be a file where this one needs a folder, or the reverse.
                with contextlib.suppress(FileExistsError, NotADirectoryError, IsADirectoryError):
                    files.rename_into(source, target)
                    return False, target
        target = self.side / "odd" / bucket / files.odd_name(key)
        files.rename_into(source, target)
        return True, target
