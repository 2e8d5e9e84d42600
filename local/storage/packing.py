"""What directories hold, gathered for S3: as one archive, or file by file.

Members are relative to the directory (TRAIN-130) and belong to root, as the service writes them;
whoever unpacks them can read them. What cannot be kept is left out and said (TRAIN-136).
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from byoa.local.storage.archives import ArchiveError
from byoa.local.storage.gzip_writer import GzipWriter

READ_BYTES = 1 << 20

Sources = Mapping[str, Path]  # by the host that wrote it; the first one's files win


@dataclass(frozen=True)
class Entry:
    """A file, a directory or a link; `name` is relative and may hold what is no UTF-8."""

    name: str
    path: Path
    mode: int


@dataclass
class Survey:
    """What is to be kept, a directory before its content, and why the rest is not."""

    entries: list[Entry] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def files(self) -> Iterator[Entry]:
        """Regular files, and links to them: a store of objects has nothing else."""
        for entry in self.entries:
            if stat.S_ISREG(entry.mode):
                yield entry
            elif stat.S_ISLNK(entry.mode):
                if entry.path.is_file():
                    yield entry
                else:
                    self.left_out.append(f"{shown(entry.name)}: a link to no file")


def survey(sources: Sources) -> Survey:
    """Everything below the directories, merged (TRAIN-132); those that are not there are empty."""
    found: dict[str, tuple[str, Entry]] = {}
    result = Survey()
    for host, directory in sources.items():
        for entry in _walk(directory) if directory.is_dir() else ():
            why = _unfit(directory, entry)
            if why is not None:
                result.left_out.append(f"{shown(entry.name)}: {why}")
                continue
            parts = entry.name.split("/")
            above = ("/".join(parts[:length]) for length in range(1, len(parts)))
            first, known = found.get(entry.name, (None, None))
            if known is None and all(stat.S_ISDIR(found[each][1].mode) for each in above):
                found[entry.name] = host, entry
            elif known is None or not _same(known, entry):
                result.left_out.append(
                    f"{shown(entry.name)} of {host}: {first or 'another host'} has written"
                    " something else under this name, which is kept"
                )
    result.entries = [
        found[name][1] for name in sorted(found, key=lambda name: name.split("/"))
    ]
    return result


def pack(sources: Sources, target: Path) -> Survey:
    """Write the contents of the directories to `target` as tar.gz, in order of their names.

    Nothing is left at `target` when it fails. Raises ArchiveError for a file that is cut while it
    is read.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    found = survey(sources)
    try:
        with (
            target.open("wb") as file,
            GzipWriter(file) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT,  # type: ignore[call-overload]
                         encoding="utf-8", errors="surrogateescape",
                         copybufsize=READ_BYTES) as archive,
        ):
            found.entries = [each for each in found.entries if _add(archive, each, found.left_out)]
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return found


def shown(name: str) -> str:
    """A file's name as one line of text, whatever its bytes are."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in name
    )


def open_file(path: Path) -> int:
    """A descriptor to read from; what the owner may not read, as a program's umask may leave it,
    is opened up first."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except PermissionError:
        path.chmod(0o600)
        return os.open(path, flags)


def _add(archive: tarfile.TarFile, entry: Entry, left_out: list[str]) -> bool:
    try:
        if not stat.S_ISREG(entry.mode):
            archive.addfile(_member(archive.gettarinfo(entry.path, arcname=entry.name)))
            return True
        with open(open_file(entry.path), "rb") as content:
            member = _member(archive.gettarinfo(arcname=entry.name, fileobj=content))
            try:
                archive.addfile(member, content if member.isreg() else None)
            except OSError as error:
                if error.errno is not None:
                    raise
                raise ArchiveError(
                    "ARCHIVE_CHANGED",
                    f"{shown(entry.name)} was cut to {content.tell()} bytes while it was packed",
                    expected=f"the {member.size} bytes that it had",
                    remedy="let nothing write to it after the program has ended",
                ) from None
            if os.fstat(content.fileno()).st_size > member.size and member.isreg():
                left_out.append(
                    f"{shown(entry.name)}: what was added to it after byte {member.size:,}, while"
                    " it was packed"
                )
    except FileNotFoundError:
        left_out.append(f"{shown(entry.name)}: removed while it was packed")
        return False
    return True


def _member(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    # A server that is not root has to read what a program with a strict umask wrote.
    member.mode = member.mode & 0o755 | (0o755 if member.isdir() else 0o644)
    member.mtime = max(0, int(member.mtime))
    return member


def _walk(directory: Path, above: str = "") -> Iterator[Entry]:
    """Everything below `directory`, in order of the names."""
    try:
        entries = os.scandir(directory)
    except PermissionError:
        directory.chmod(0o700)
        entries = os.scandir(directory)
    with entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for each in ordered:
        try:
            mode = each.stat(follow_symlinks=False).st_mode
        except FileNotFoundError:
            continue
        entry = Entry(f"{above}{each.name}", directory / each.name, mode)
        yield entry
        if stat.S_ISDIR(mode):
            yield from _walk(entry.path, f"{entry.name}/")


def _unfit(directory: Path, entry: Entry) -> str | None:
    """Why it cannot be kept; None when it can."""
    if stat.S_ISLNK(entry.mode):
        goal = os.readlink(entry.path)
        root = os.path.realpath(directory)
        inside = os.path.realpath(entry.path.parent / goal)
        if os.path.isabs(goal) or os.path.commonpath([root, inside]) != root:
            where = "by an absolute path" if os.path.isabs(goal) else "outside the directory"
            return f"a link to {shown(goal)}, {where}; copy the file, or link to it relatively"
        return None
    if stat.S_ISREG(entry.mode) or stat.S_ISDIR(entry.mode):
        return None
    if stat.S_ISSOCK(entry.mode):
        return "a socket"
    return "a pipe" if stat.S_ISFIFO(entry.mode) else "a device"


def _same(one: Entry, other: Entry) -> bool:
    """Whether two hosts have written the same under one name."""
    if stat.S_IFMT(one.mode) != stat.S_IFMT(other.mode):
        return False
    if stat.S_ISLNK(one.mode):
        return os.readlink(one.path) == os.readlink(other.path)
    if stat.S_ISDIR(one.mode):
        return True
    try:
        with open(open_file(one.path), "rb") as first, open(open_file(other.path), "rb") as second:
            if os.fstat(first.fileno()).st_size != os.fstat(second.fileno()).st_size:
                return False
            while data := first.read(READ_BYTES):
                if data != second.read(READ_BYTES):
                    return False
    except FileNotFoundError:
        return False
    return True
