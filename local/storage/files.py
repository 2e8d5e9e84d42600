"""Files of the bucket store: where a key lives on disk, drafts, and copies made by the kernel.

A key that is a plain relative path is that path; any other has a name made of its hash, aside.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

__all__ = [
    "Draft",
    "copy_range",
    "copy_whole",
    "feed",
    "identity",
    "link_readable",
    "md5_of",
    "odd_name",
    "plain_path",
    "prune",
    "rename_into",
    "unlink_quietly",
    "walk",
]

SEGMENT_LIMIT_BYTES = 255  # of every common filesystem
COPY_BYTES = 1 << 30  # at a time for the kernel
HASH_BYTES = 1 << 20
_READABLE = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
_FICLONE = 0x40049409  # Linux: share the extents of a whole file

# What a filesystem or kernel says that cannot clone, or cannot copy between these two files.
_CANNOT = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.ENOTTY, errno.EOPNOTSUPP, errno.EPERM}


def plain_path(key: str) -> str | None:
    """The key as a relative path, or None when no path says exactly this key.

    Not plain: an empty segment (`a//b`, `/a`, `a/`), `.` or `..`, a segment over 255 bytes, NUL.
    """
    if "\0" in key:
        return None
    for segment in key.split("/"):
        if segment in ("", ".", "..") or len(segment.encode()) > SEGMENT_LIMIT_BYTES:
            return None
    return key


def odd_name(key: str) -> str:
    """The name of a key that is not plain, relative to the bucket's side area."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    return f"{digest[:2]}/{digest}"


def prune(directory: Path, root: Path) -> None:
    """Remove `directory` and its parents below `root` while they are empty."""
    while directory != root and root in directory.parents:
        try:
            directory.rmdir()
        except OSError:
            return
        directory = directory.parent


def copy_whole(source: int, target: int, length: int) -> None:
    """Copy a file of `length` bytes into an empty one: shared extents where the filesystem has
    them (later writes to either never reach the other), otherwise by `copy_range`."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
        return
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    copy_range(source, 0, target, 0, length)


def copy_range(source: int, offset: int, target: int, at: int, length: int) -> None:
    """Copy `length` bytes between two files without bringing them into this process."""
    kernel = getattr(os, "copy_file_range", None)  # Linux has it, macOS has not
    while length:
        count = 0
        if kernel is not None:
            try:
                count = kernel(source, target, min(length, COPY_BYTES), offset, at)
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise
                kernel = None
        if kernel is None:
            data = memoryview(os.pread(source, min(length, 1 << 20), offset))
            count = len(data)
            written = 0
            while written < count:
                written += os.pwrite(target, data[written:], at + written)
        if not count:
            raise OSError(errno.EIO, "the source of a copy became shorter")
        offset, at, length = offset + count, at + count, length - count


def unlink_quietly(path: Path | str) -> None:
    """Remove a file that may be gone already."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def link_readable(source: Path, target: Path) -> bool:
    """A second name of a regular file that everybody may read; False where that cannot be."""
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):  # another filesystem, or one without; gone meanwhile
        return False
    status = os.lstat(target)
    if stat.S_ISREG(status.st_mode) and status.st_mode & _READABLE == _READABLE:
        return True
    os.unlink(target)
    return False


class Draft:
    """A file being written aside, on the bucket's filesystem; its name is gone at the end of its
    `with`, whether it was committed (renamed) or not."""

    def __init__(self, path: Path, *, existing: bool = False) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_CLOEXEC | (0 if existing else os.O_CREAT | os.O_EXCL)
        self.fd = os.open(path, flags, 0o666)

    def write(self, data: bytes | memoryview) -> None:
        """Append all of `data`; OSError as the filesystem gives it (ENOSPC …)."""
        view = memoryview(data)
        while view:
            view = view[os.write(self.fd, view) :]

    def close(self) -> None:
        """Close and remove."""
        os.close(self.fd)
        unlink_quietly(self.path)

    def __enter__(self) -> Draft:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def identity(status: os.stat_result) -> tuple[int, int]:
    """What tells that a file is still the same: inode (within SQLite's integers), mtime in ns."""
    return status.st_ino & (2**63 - 1), status.st_mtime_ns


def feed(fd: int, start: int, length: int, sinks: Sequence[Callable[[memoryview], object]]) -> None:
    """Give `length` bytes of a file from `start` to each sink, piece by piece."""
    buffer = memoryview(bytearray(min(HASH_BYTES, max(length, 1))))
    while length:
        count = os.preadv(fd, [buffer[: min(len(buffer), length)]], start)
        if not count:
            raise OSError(errno.EIO, "a file became shorter while it was read")
        for sink in sinks:
            sink(buffer[:count])
        start, length = start + count, length - count


def md5_of(fd: int) -> str:
    """MD5 in hex of a whole file."""
    digest = hashlib.md5(usedforsecurity=False)
    feed(fd, 0, os.fstat(fd).st_size, [digest.update])
    return digest.hexdigest()


def walk(top: Path, folder: str) -> Iterator[tuple[str, int]]:
    """Key and inode of each regular file below `top`, whose own key is `folder`; follows no link,
    skips names that are not UTF-8."""
    pending = [(str(top), f"{folder}/" if folder else "")]
    while pending:
        directory, prefix = pending.pop()
        try:
            entries = os.scandir(directory)
        except (FileNotFoundError, NotADirectoryError):
            continue
        with entries:
            for entry in entries:
                try:
                    entry.name.encode()
                except UnicodeEncodeError:
                    continue
                if entry.is_file(follow_symlinks=False):
                    yield prefix + entry.name, entry.inode() & (2**63 - 1)
                elif entry.is_dir(follow_symlinks=False):
                    pending.append((entry.path, f"{prefix}{entry.name}/"))


def rename_into(source: Path, target: Path) -> None:
    """Rename, with the folders that it takes; an empty folder in the target's place gives way."""
    try:
        os.rename(source, target)
    except FileNotFoundError:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, target)
    except IsADirectoryError:
        try:
            target.rmdir()
        except OSError:
            raise IsADirectoryError(errno.EISDIR, "a folder with files", str(target)) from None
        os.rename(source, target)
