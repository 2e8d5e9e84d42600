"""An interpreter that is kept ready for the next training job of a warm pool (TRAIN-211).

The platform starts `train` ahead of the job, with BYOA_WARM in its environment: the algorithm is
imported, then standard input says which job it is, as one JSON object, or ends, and so does this
process. It runs one job at most, so that none finds anything of another (TRAIN-214). When a file
that was imported has changed since, it starts from the beginning.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

WARM_VARIABLE = "BYOA_WARM"
_FORMATS = "byoa.container.formats"
_FILES_LIMIT = 5000  # in the algorithm's folder; with more it is not worth looking at them all

_Mark = tuple[int, int, int]


def wait(registry: str, algorithm: str | None) -> bool:
    """Import the algorithm and wait for the job; False where none comes.

    The environment and the working directory are then the job's.
    """
    started, place = time.time_ns(), Path.cwd()
    importlib.import_module(_FORMATS)
    if algorithm:
        importlib.import_module(registry).find(algorithm)
    marks = _marks(place)
    text = sys.stdin.readline()
    if not text.strip():
        return False
    job = json.loads(text)
    os.dup2(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), 0)
    changed = _marks(place) != marks or any(mark[1] >= started for mark in marks.values())
    os.environ.clear()
    os.environ.update(job["environment"])
    if sys.path and sys.path[0] == str(place):  # of `python -m`
        sys.path[0] = job["cwd"]
    os.chdir(job["cwd"])
    if changed:
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - our own argv, again
    importlib.invalidate_caches()
    return True


def _marks(place: Path) -> dict[str, _Mark]:
    """What tells whether the code is what was imported: the modules' files, and all of the folder
    of the algorithm."""
    found = {}
    for path in {*_modules(), *_folder(place)}:
        try:
            status = os.stat(path)
        except OSError:
            found[path] = (0, 0, 0)
        else:
            found[path] = (status.st_size, status.st_mtime_ns, status.st_ino)
    return found


def _modules() -> Iterator[str]:
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if isinstance(path, str):
            yield path


def _folder(place: Path) -> Iterator[str]:
    """Files of the working directory, if modules are imported from it, without their byte code."""
    if str(place) not in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        return
    count = 0
    for folder, folders, names in os.walk(place):
        folders[:] = [each for each in folders if each != "__pycache__" and each[0] != "."]
        for name in names:
            yield os.path.join(folder, name)
            count += 1
            if count >= _FILES_LIMIT:
                return
