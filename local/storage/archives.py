"""Archives that are unpacked: models, and sources, safely. `packing` makes them."""

from __future__ import annotations

import tarfile
import zlib
from pathlib import Path
from typing import Any

from byoa.container.errors import ByoaError

READ_BYTES = 1 << 20


class ArchiveError(ByoaError):
    """An archive that cannot be made or must not be unpacked."""


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
