"""Fill wheels/ with all that the image is built from: `wheels.py DOCKER BASE_IMAGE [TORCH_INDEX]`.

pip runs here where this Python is the base image's, so that its settings on this machine hold;
otherwise in a container of the base image. Called by `make wheels`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WHEELS = ROOT / "wheels"
EXTRAS = "fast"
# What a container is told of this machine's settings: addresses, for a path means nothing there.
PASSED = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_DEFAULT_TIMEOUT",
          "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
DESCRIBE = (
    "import os, platform, sys;"
    "print(*sys.version_info[:2], platform.machine(), os.confstr('CS_GNU_LIBC_VERSION'))"
)


def describe(*before: str) -> tuple[list[str], list[int]]:
    """Python's minor version and machine, and the C library's version; here or in a container."""
    text = subprocess.run(
        [*before, "python3" if before else sys.executable, "-c", DESCRIBE],
        check=True, timeout=600, text=True, stdout=subprocess.PIPE,
    ).stdout.split()
    return text[:3], [int(part) for part in text[-1].split(".")]


def fits(docker: str, base: str) -> bool:
    """Whether a wheel that is compiled here runs in the base image."""
    here, libc = describe()
    there, libc_there = describe(docker, "run", "--rm", "--entrypoint", "", base)
    return here == there and libc <= libc_there


def build(directory: Path, torch_index: str) -> None:
    """Wheels of all that is locked, in `directory`; those that wheels/ holds are taken again."""
    with tempfile.TemporaryDirectory() as temporary:
        subprocess.run([sys.executable, "-m", "venv", temporary], check=True, timeout=300)
        python = str(Path(temporary) / "bin" / "python")
        subprocess.run([sys.executable, str(HERE / "requirements.py"), EXTRAS, temporary],
                       check=True, cwd=ROOT, timeout=60)
        if torch_index:
            torch_index = f"--extra-index-url={torch_index}"
        image = ["--constraint", "constraints.txt", "pip", "--requirement",
                 f"{temporary}/dependencies.txt", "--requirement", f"{temporary}/torch.txt"]
        for wanted in (image, ["--requirement", "container/image/tools.txt"]):
            argv = [python, "-m", "pip", "--disable-pip-version-check", "wheel",
                    "--wheel-dir", str(directory), "--find-links", "wheels",
                    *([torch_index] if torch_index else []), *wanted]
            subprocess.run(argv, check=True, cwd=ROOT, timeout=3600)


def in_container(docker: str, base: str, directory: Path, torch_index: str) -> None:
    settings = [word for name in PASSED if name in os.environ for word in ("--env", name)]
    argv = [docker, "run", "--rm", "--entrypoint", "", *settings,
            "--volume", f"{ROOT}:/build:ro", "--volume", f"{directory}:/new", "--workdir", "/build",
            base, "python3", "container/image/wheels.py", "--inside", "/new", torch_index]
    subprocess.run(argv, check=True, timeout=3600)


def main(docker: str, base: str, torch_index: str = "") -> None:
    with tempfile.TemporaryDirectory(dir=ROOT, prefix="wheels-") as temporary:
        new = Path(temporary)
        if fits(docker, base):
            build(new, torch_index)
        else:
            in_container(docker, base, new, torch_index)
        shutil.rmtree(WHEELS, ignore_errors=True)
        WHEELS.mkdir()
        for wheel in new.glob("*.whl"):
            shutil.move(str(wheel), WHEELS)
    size = sum(wheel.stat().st_size for wheel in WHEELS.iterdir())
    print(f"wheels/: {len(list(WHEELS.iterdir()))} wheels, {size / 1e6:.0f} MB")


if __name__ == "__main__":
    if sys.argv[1] == "--inside":
        build(Path(sys.argv[2]), sys.argv[3])
    else:
        main(*sys.argv[1:])
