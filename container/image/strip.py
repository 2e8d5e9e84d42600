"""Remove from an installed tree what a container never uses: `strip.py ROOT`; then compile it.

Tests, headers, static libraries and type stubs. A package's own `testing` module stays, as other
packages import it.
"""

from __future__ import annotations

import compileall
import re
import shutil
import sys
from pathlib import Path

# A folder below site-packages, or a file; patterns of a path relative to it.
FOLDERS = (
    r".+/tests",                        # numpy, sympy, networkx …
    r"torch/(include|share|test)",      # headers, CMake files: nothing is compiled here
    r"torch/_inductor/.*/include",
    r"numpy/(_core/include|f2py/src|random/_examples)",
    r"byoa/local",                      # what runs inside knows nothing of the local SageMaker
)
FILES = (
    r".+\.(a|lib|pyi|pxd|pyx|pxi|h|hpp|cuh|c|cpp|cc|f|f90)",
    r"torch/bin/(?!torch_shm_manager$).+",  # the one program that torch starts
)
SCRIPTS = ("byoa",)  # the local SageMaker's command


def strip(site: Path) -> int:
    """Remove the folders and files; the bytes that went."""
    removed = 0
    for path in sorted(site.rglob("*"), key=lambda each: len(each.parts)):
        name = path.relative_to(site).as_posix()
        if path.is_symlink() or not path.exists():
            continue
        if path.is_dir():
            if any(re.fullmatch(pattern, name) for pattern in FOLDERS):
                removed += sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
                shutil.rmtree(path)
        elif any(re.fullmatch(pattern, name) for pattern in FILES):
            removed += path.stat().st_size
            path.unlink()
    return removed


def main(root: str) -> None:
    top = Path(root, "opt", "byoa")
    for script in SCRIPTS:
        (top / "bin" / script).unlink(missing_ok=True)
    shutil.rmtree(top / "include", ignore_errors=True)  # headers; an empty one may be there
    for site in top.glob("lib/python3*/site-packages"):
        removed = strip(site)
        print(f"{site}: {removed / 1e6:.0f} MB removed")
        # In the image nothing is compiled at start: it may be read-only.
        compileall.compile_dir(str(site), quiet=2, workers=0, stripdir=root, prependdir="/",
                               maxlevels=40)


if __name__ == "__main__":
    main(*sys.argv[1:])
