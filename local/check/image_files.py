"""The files of an image, read once from the engine's export of a container that never runs."""

from __future__ import annotations

import contextlib
import io
import posixpath
import stat
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

READ_BYTES = 1 << 20
LINK_LIMIT = 40  # symbolic links on the way to one file, as the kernel counts


@dataclass(frozen=True)
class Entry:
    """A file, directory or link of the image."""

    path: str  # absolute
    mode: int  # with the type, as of stat
    size: int
    uid: int
    link: str | None = None  # where a symbolic link leads

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def permissions(self) -> str:
        return f"{stat.S_IMODE(self.mode):04o}"


class ImageFiles:
    """Every path of an image, and the content of those that are asked for."""

    def __init__(self, engine: Any, container: str) -> None:
        self._api = engine.api
        self._container = container
        self._entries = dict(_scan(engine.api.export(container)))

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def entry(self, path: str) -> Entry | None:
        """What is at `path` itself, a link not followed at the end; None for nothing."""
        parent, name = posixpath.split(posixpath.normpath(path))
        if not name:
            return self._entries.get("/")
        folder = self.resolve(parent)
        return None if folder is None else self._entries.get(posixpath.join(folder.path, name))

    def resolve(self, path: str) -> Entry | None:
        """What `path` leads to, links followed within the image; None where it leads nowhere."""
        parts = posixpath.normpath(path).strip("/").split("/")
        at, links = "/", 0
        while parts:
            part = parts.pop(0)
            if part in ("", "."):
                continue
            if part == "..":
                at = posixpath.dirname(at)
                continue
            found = self._entries.get(posixpath.join(at, part))
            if found is None:
                return None
            if found.link is None:
                at = found.path
                continue
            links += 1
            if links > LINK_LIMIT:
                return None
            if found.link.startswith("/"):
                at = "/"
            parts = found.link.strip("/").split("/") + parts
        return self._entries.get(at)

    def below(self, folder: str) -> list[Entry]:
        """Everything below a folder, by path."""
        start = folder.rstrip("/") + "/"
        return [each for path, each in sorted(self._entries.items()) if path.startswith(start)]

    def read(self, path: str, limit: int = READ_BYTES) -> bytes:
        """The first `limit` bytes of a file, links followed; empty where there is none."""
        found = self.resolve(path)
        if found is None or not found.is_file:
            return b""
        stream, _ = self._api.get_archive(self._container, found.path)
        with contextlib.closing(stream), _open(stream) as archive:
            member = archive.next()
            content = None if member is None else archive.extractfile(member)
            return b"" if content is None else content.read(limit)


    def texts(self, folder: str, wanted: Collection[str]) -> Iterator[tuple[str, str]]:
        """Path and text of the files `wanted` below `folder`, in one read of it."""
        stream, _ = self._api.get_archive(self._container, folder)
        above = posixpath.dirname(folder.rstrip("/"))
        with contextlib.closing(stream), _open(stream) as archive:
            for member in archive:
                path = posixpath.join(above, member.name)
                content = archive.extractfile(member) if path in wanted else None
                if content is not None:
                    yield path, content.read().decode("utf-8", "replace")


def _scan(stream: Any) -> Iterator[tuple[str, Entry]]:
    yield "/", Entry("/", stat.S_IFDIR | 0o755, 0, 0)
    with contextlib.closing(stream), _open(stream) as archive:
        for member in archive:
            path = "/" + member.name.strip("/")
            kind = (
                stat.S_IFDIR if member.isdir() else stat.S_IFLNK if member.issym()
                else stat.S_IFREG if member.isreg() or member.islnk() else stat.S_IFCHR
            )
            yield path, Entry(
                path, kind | stat.S_IMODE(member.mode), member.size, member.uid,
                member.linkname if member.issym() else None,
            )
            # A stream's archive would otherwise remember all of them a second time.
            archive.members = []  # type: ignore[attr-defined]


def _open(stream: Any) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BufferedReader(_Raw(stream), READ_BYTES), mode="r|")


class _Raw(io.RawIOBase):
    """The chunks of an answer as a file."""

    def __init__(self, chunks: Any) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            try:
                self._rest = memoryview(next(self._chunks))
            except StopIteration:
                return 0
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
