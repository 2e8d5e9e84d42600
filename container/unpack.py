"""Unpacking a tar that somebody else has made: nothing of it gets outside the directory.

Python's own filter "data" does it; the releases of Python 3.10 and 3.11 that Debian and others
still ship have none, so there the same rules are kept here.
"""

from __future__ import annotations

import os
import posixpath
import tarfile
from collections.abc import Iterator
from pathlib import Path


def unpack(archive: tarfile.TarFile, directory: Path) -> None:
    """Extract all members into `directory`, an empty one; raises TarError for one that would be
    outside, leads outside, or is a device."""
    if hasattr(tarfile, "data_filter"):
        archive.extractall(directory, filter="data")
    else:
        members = list(_checked(archive))
        archive.extractall(directory, members)  # noqa: S202 - every member has been checked


def _checked(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    links: set[str] = set()
    for member in archive:
        name = posixpath.normpath(member.name.lstrip("/"))
        if _is_outside(name):
            raise tarfile.ExtractError(f"{member.name!r} would be outside the directory")
        parts = name.split("/")
        # A link that an earlier member has made may lead elsewhere by way of another.
        if any("/".join(parts[:end]) in links for end in range(1, len(parts))):
            raise tarfile.ExtractError(f"{member.name!r} would be written through a link")
        if member.issym() or member.islnk():
            base = posixpath.dirname(name) if member.issym() else ""
            target = posixpath.normpath(posixpath.join(base, member.linkname))
            if posixpath.isabs(member.linkname) or _is_outside(target):
                raise tarfile.ExtractError(f"{member.name!r} links to {member.linkname!r}, which"
                                           " is outside the directory")
            links.add(name)
        elif not (member.isreg() or member.isdir()):
            raise tarfile.ExtractError(f"{member.name!r} is no file, directory or link")
        member.name = name
        # No bits of another user's, and nothing that others may write.
        member.mode = (member.mode | (0o700 if member.isdir() else 0o600)) & 0o755
        member.uid, member.gid, member.uname, member.gname = os.getuid(), os.getgid(), "", ""
        yield member


def _is_outside(name: str) -> bool:
    return name == ".." or name.startswith("../")
