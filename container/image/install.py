"""`pip install` of the image's builder: `install.py PYTHON [ARGUMENT]…`, from wheels/ or the index.

Where wheels/ holds wheels nothing else is asked, so that the build needs no network; otherwise
the index is asked, with a compiler for what is published as source only.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

WHEELS = Path("/build/wheels")
# Published as source with a C extension.
SOURCE_ONLY = ("sagemaker-training",)


def find_links(directory: Path) -> list[str]:
    if any(directory.glob("*.whl")):
        return ["--no-index", "--find-links", str(directory)]
    return []


def requires_compiler(arguments: list[str]) -> bool:
    files = [after for flag, after in zip(arguments, arguments[1:], strict=False)
             if flag == "--requirement"]
    return any(name in Path(file).read_text() for file in files for name in SOURCE_ONLY)


def install_compiler() -> None:
    """A C compiler and Python's headers, from the distribution; in the builder stage only."""
    packages = [] if shutil.which("gcc") else ["gcc", "libc6-dev"]
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        packages.append("python3-dev")
    if not packages:
        return
    if not shutil.which("apt-get"):
        sys.exit(f"{' and '.join(SOURCE_ONLY)} must be compiled, and this base image has neither"
                 " a compiler nor apt-get: run `make wheels` first, or take a Debian base image")
    for argv in (["apt-get", "update"],
                 ["apt-get", "install", "--yes", "--no-install-recommends", *packages]):
        if subprocess.run(argv, timeout=900).returncode:
            sys.exit("no compiler could be installed: build where the distribution's package"
                     " archive can be reached, or run `make wheels` first")


def pip_install(python: str, *arguments: str) -> None:
    """Exit, saying what to do, where pip does not succeed."""
    offline = find_links(WHEELS)
    if not offline and requires_compiler(list(arguments)):
        install_compiler()
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
