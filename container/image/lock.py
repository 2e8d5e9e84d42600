"""Lock the versions of all that goes into the image: writes constraints.txt and tools.txt.

pip resolves without installing. Run it (`make lock`) with the Python of the base image; a version
that is locked already stays unless `--upgrade` is given.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
TOOLS = HERE / "tools.txt"
EXTRAS = "fast,torch"
# pip is in the image because script mode installs a requirements.txt with it.
IMAGE = [f".[{EXTRAS}]", "pip"]
# What the builder stage runs: the project's build back end, and the SBOM's writer.
BUILD_TOOLS = ["setuptools>=77", "wheel", "cyclonedx-bom>=7"]


def resolve(requirements: list[str], before: Path, upgrade: bool) -> dict[str, str]:
    """Name and version of every distribution that `requirements` need."""
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary) / "report.json"
        argv = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run",
                "--ignore-installed", "--report", str(report), *requirements]
        if before.exists() and not upgrade:
            argv += ["--constraint", str(before)]
        subprocess.run(argv, cwd=ROOT, check=True, timeout=1200)
        found = json.loads(report.read_text())["install"]
    pinned = {
        re.sub(r"[-_.]+", "-", each["metadata"]["name"]).lower():
            # Without the build's label: `2.13.0+cpu` is the CPU build of the locked release.
            each["metadata"]["version"].partition("+")[0]
        for each in found
    }
    pinned.pop("byoa", None)
    return dict(sorted(pinned.items()))


def write(path: Path, what: str, pinned: dict[str, str]) -> None:
    head = f"""\
# {what}, exact versions.
# Made by `make lock` with Python {platform.python_version_tuple()[0]}.\
{platform.python_version_tuple()[1]} on {sys.platform}; \
`make lock UPGRADE=--upgrade` takes the newest that fit.
"""
    path.write_text(head + "".join(f"{name}=={version}\n" for name, version in pinned.items()))


def main(upgrade: bool) -> None:
    write(CONSTRAINTS, f"All that goes into the image: byoa[{EXTRAS}] and pip",
          resolve(IMAGE, CONSTRAINTS, upgrade))
    write(TOOLS, "What builds the image and does not go into it",
          resolve(BUILD_TOOLS, TOOLS, upgrade))


if __name__ == "__main__":
    main("--upgrade" in sys.argv[1:])
