"""An inference script's code and what it needs, made ready before the workers start (ITK-02)."""

from __future__ import annotations

import contextlib
import os
import shutil
import site
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from byoa.container.contract import Layout
from byoa.container.script_source import SUBMIT_VARIABLE, fetch
from byoa.serve.script_place import CODE


def fetched(layout: Layout, environ: Mapping[str, str]) -> Path | None:
    """Where SAGEMAKER_SUBMIT_DIRECTORY leads: a directory, or /opt/ml/code with what the tar held;
    None where the variable is not set, or is the model's own code/. Raises AlgorithmError."""
    source = environ.get(SUBMIT_VARIABLE, "").strip()
    if not source:
        return None
    if urlsplit(source).scheme == "":
        directory = layout.inside(source)
        if directory == layout.model / CODE:  # which the SDK always names, be it there or not
            return None
        if directory.is_dir():
            return directory
    fetch(source, layout, environ)
    return layout.code


@contextlib.contextmanager
def requirements(code: Path, environ: Mapping[str, str]) -> Iterator[bool]:
    """Install code/requirements.txt, where there is one, for as long as this process serves; False
    where SIGTERM came first. Raises AlgorithmError.

    The packages go to an environment of their own, before all others on the path, so that an image
    that may not be written to does as well.
    """
    from byoa.container import script_requirements
    from byoa.container.script_entry import Entry

    if not (code / script_requirements.FILE).is_file():
        yield True
        return
    place = Path(tempfile.mkdtemp(prefix="byoa-python-"))
    owner = os.getpid()
    try:
        place.chmod(0o755)  # the workers may be another user
        entry = Entry(script_requirements.FILE, "script", ())
        done = script_requirements.install(entry, code, environ, place, _say)
        if not done.stopped:
            _put_first(place)
            os.environ.update(done.variables)
        yield not done.stopped
    finally:  # a worker comes this way, too, when it ends
        if os.getpid() == owner:
            shutil.rmtree(place, ignore_errors=True)


def _put_first(place: Path) -> None:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    before = list(sys.path)
    site.addsitedir(str(place / "lib" / version / "site-packages"))
    sys.path[:] = [each for each in sys.path if each not in before] + before


def _say(text: str) -> None:
    print(f"byoa serve: {text}", flush=True)
