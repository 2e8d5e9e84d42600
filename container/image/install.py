"""`pip install` of the image's builder: `install.py PYTHON [ARGUMENT]…`, from wheels/ or the index.

Where wheels/ holds wheels nothing else is asked, so that the build needs no network; otherwise
the index is asked. All that goes into the image is published as wheels: nothing is compiled.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

WHEELS = Path("/build/wheels")


def find_links(directory: Path) -> list[str]:
    if any(directory.glob("*.whl")):
        return ["--no-index", "--find-links", str(directory)]
    return []


def pip_install(python: str, *arguments: str) -> None:
    """Exit, saying what to do, where pip does not succeed."""
    offline = find_links(WHEELS)
    argv = [python, "-m", "pip", "--disable-pip-version-check", "install", "--no-cache-dir",
            "--no-warn-script-location", *offline, *arguments]
    environment = {**os.environ, "PIP_ROOT_USER_ACTION": "ignore"}  # an old pip has no such option
    if subprocess.run(argv, env=environment, timeout=3600).returncode == 0:
        return
    if offline:
        version = ".".join(platform.python_version_tuple()[:2])
        sys.exit(f"wheels/ lacks something for Python {version} on {platform.machine()}: make it"
                 " again with `make wheels`, or empty it to build from the package index")
    sys.exit("pip failed: see above; a build without a package index needs `make wheels` first")


if __name__ == "__main__":
    pip_install(*sys.argv[1:])
