"""The files of a File or FastFile channel: which of them are data, and their bytes, gunzipped."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from byoa.container.contract import CHECKPOINT_IGNORED_SUFFIXES
from byoa.container.errors import DataError
from byoa.container.objects import Readable

__all__ = ["GZIP_SUFFIX", "data_files", "opened"]

GZIP_SUFFIX = ".gz"
# Spark and Hadoop leave an empty file of this name beside their part files.
_MARKERS = frozenset({"_SUCCESS"})


def data_files(directory: Path, channel: str) -> list[Path]:
    """The data files below the directory, sorted by path.

    Left out are hidden files and directories, the platform's markers (TRAIN-173), the channel's
    manifest (TRAIN-31) and Spark's _SUCCESS.
    """

    def is_data(path: Path) -> bool:
        relative = path.relative_to(directory)
        return not (
            any(part.startswith(".") for part in relative.parts)
            or path.name.endswith(CHECKPOINT_IGNORED_SUFFIXES)
            or path.name in _MARKERS
            or relative.as_posix() == f"{channel}-manifest"
        ) and path.is_file()

    return sorted(path for path in directory.rglob("*") if is_data(path))


@contextmanager
def opened(path: Path, name: str) -> Generator[Readable, None, None]:
    """The file's bytes, decompressed where its suffix is `.gz`. `name` is its place in errors:
    DataError FILE_UNREADABLE, BODY_MALFORMED."""
    zipped = path.suffix.lower() == GZIP_SUFFIX
    try:
        file: IO[bytes] = gzip.open(path) if zipped else path.open("rb")
    except OSError as error:
        raise _unreadable(name, error) from error
    with file:
        yield _File(file, name)


class _File:
    """A file whose faults are named."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self.file = file
        self.name = name

    def read(self, size: int, /) -> bytes:
        try:
            return self.file.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(
                "BODY_MALFORMED", f"it is not a whole gzip file: {error}", where=self.name,
                expected=f"a file that gzip wrote, as its suffix {GZIP_SUFFIX} says",
            ) from None
        except OSError as error:
            raise _unreadable(self.name, error) from error


def _unreadable(name: str, error: OSError) -> DataError:
    return DataError(
        "FILE_UNREADABLE", f"it cannot be read: {error.strerror or error}", where=name,
        expected="a file that the training's user may read, to its end",
    )
