"""Model and output archives: the contents of a directory as .tar.gz, and back, safely.

Members are relative to the directory (TRAIN-130) and belong to root, as the service writes them.
"""

from __future__ import annotations

import os
import stat
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byoa.container.errors import ByoaError

# Weights hardly compress: level 1 takes a third of the time of level 6 for about the same size.
GZIP_LEVEL = 1
READ_BYTES = 1 << 20


class ArchiveError(ByoaError):
    """An archive that cannot be made or must not be unpacked."""


@dataclass(frozen=True)
class Packed:
    """What went into an archive, and what was left out with the reason."""

    files: int
    left_out: tuple[str, ...] = ()


def pack(directory: Path, target: Path, *more: Path) -> Packed:
    """Write the contents of `directory` to `target` as tar.gz, in order of their names.

    Contents of `more` directories are merged into it; what an earlier one has is not replaced, and
    reported.
    Sockets, pipes and devices are left out and reported. A link that leaves the directory raises
    ArchiveError: it would be broken, or refused, wherever the archive is unpacked (TRAIN-136).
    """
    files = 0
    left_out: list[str] = []
    target.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(target, "w:gz", compresslevel=GZIP_LEVEL) as archive:
        for root, name, path, mode in _merge((directory, *more), left_out):
            if stat.S_ISLNK(mode):
                _check_link(root, path, name)
            elif not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                left_out.append(f"{name}: {_kind(mode)}")
                continue
            member = archive.gettarinfo(path, arcname=name)
            member.uid = member.gid = 0
            member.uname = member.gname = "root"
            if member.isreg():
                files += 1
                with path.open("rb") as content:
                    archive.addfile(member, content)
            else:
                files += member.islnk()
                archive.addfile(member)
    return Packed(files, tuple(left_out))


def extract(archive: Path, directory: Path) -> int:
    """Unpack a tar (gzip, bzip2, xz or plain) below `directory`; the number of files.

    Refuses members that would land outside, absolute links, and devices.
    """
    directory.mkdir(parents=True, exist_ok=True)
    files = 0
    try:
        with tarfile.open(archive, "r:*") as opened:
            for member in opened:
                _extract_member(opened, member, directory)
                files += member.isreg() or member.islnk()
            # The checksum of the compressed data comes after the last member.
            while opened.fileobj is not None and opened.fileobj.read(READ_BYTES):
                pass
    except tarfile.FilterError as error:
        raise ArchiveError(
            "ARCHIVE_UNSAFE",
            f"{archive.name} holds {error.tarinfo.name!r}: {error}",
            expected="members that stay below the directory that they are unpacked into",
            remedy="pack the contents of the model directory with relative names",
        ) from None
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # the disk's fault, not the archive's
        raise ArchiveError(
            "ARCHIVE_INVALID",
            f"{archive.name} is no tar archive, or a broken one: {error}",
            expected="a .tar.gz of the model directory's contents",
        ) from None
    return files


def _extract_member(opened: tarfile.TarFile, member: tarfile.TarInfo, directory: Path) -> None:
    options: dict[str, Any] = {"filter": "data"}
    opened.extract(member, directory, set_attrs=True, **options)


def files_below(directory: Path, *more: Path) -> Iterator[tuple[str, Path]]:
    """Regular files below `directory`, with their relative names, in order (links followed).

    Those of `more` directories are merged among them, as `pack` does it.
    """
    for _, name, path, _ in _merge((directory, *more), []):
        if path.is_file():
            yield name, path


def _merge(
    directories: Sequence[Path], left_out: list[str]
) -> Iterator[tuple[Path, str, Path, int]]:
    """Everything below the directories in order, as `_walk`, with the directory that it is from."""
    if len(directories) == 1:
        for name, path, mode in _walk(directories[0]):
            yield directories[0], name, path, mode
        return
    found: dict[str, tuple[Path, Path, int]] = {}
    for directory in directories:
        for name, path, mode in _walk(directory):
            parts = name.split("/")
            above = ("/".join(parts[:length]) for length in range(1, len(parts)))
            known = found.get(name)
            if known is None and all(stat.S_ISDIR(found[each][2]) for each in above):
                found[name] = directory, path, mode
            elif known is None or not (stat.S_ISDIR(known[2]) and stat.S_ISDIR(mode)):
                left_out.append(f"{name}: {path}, for another directory has the name")
    for name in sorted(found, key=lambda name: name.split("/")):
        directory, path, mode = found[name]
        yield directory, name, path, mode


def _walk(directory: Path) -> Iterator[tuple[str, Path, int]]:
    """Everything below `directory`: relative name, path, mode; a directory before its content."""
    with os.scandir(directory) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        path = directory / entry.name
        mode = entry.stat(follow_symlinks=False).st_mode
        yield entry.name, path, mode
        if stat.S_ISDIR(mode):
            for name, below, below_mode in _walk(path):
                yield f"{entry.name}/{name}", below, below_mode


def _check_link(directory: Path, path: Path, name: str) -> None:
    goal = os.readlink(path)
    root = os.path.realpath(directory)
    inside = os.path.realpath(os.path.join(os.path.dirname(path), goal))
    if os.path.isabs(goal) or os.path.commonpath([root, inside]) != root:
        raise ArchiveError(
            "ARCHIVE_LINK",
            f"{name} links to {goal}, outside the directory that is archived",
            expected="regular files, directories, and relative links between them",
            remedy="copy the file instead of linking to it",
        )


def _kind(mode: int) -> str:
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a pipe" if stat.S_ISFIFO(mode) else "a device"
