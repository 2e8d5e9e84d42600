"""Install the build of torch that was asked for, below /torch: `install_torch.py VARIANT [INDEX]`.

A variant is `cpu`, `cu126` (CUDA 12.6), `cu` (any CUDA) or `none`. Which build comes is the
index's choice, so it is checked before anything large is fetched, and again once it is installed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from install import pip_install

PYTHON = "/opt/byoa/bin/python"
ROOT = Path("/torch")
CUDA_LIBRARIES = ("nvidia-", "triton")
CURE = (
    "give TORCH_INDEX=<address of the index of that build>, or put its wheels in wheels/ and the"
    " other build's out"
)
TELL = "import json, torch; print(json.dumps([torch.__version__, torch.version.cuda]))"


def mismatch(variant: str, version: str, cuda: str | None) -> str:
    """What is wrong with torch `version`, built for `cuda` (None: CPU); "" where all is right."""
    has = f"torch {version} is a build for {f'CUDA {cuda}' if cuda else 'the CPU only'}"
    if variant == "cpu":
        return "" if cuda is None else f"TORCH_VARIANT=cpu, but {has}: {CURE}"
    if cuda is None or variant not in ("cu", f"cu{cuda.replace('.', '')}"):
        return f"TORCH_VARIANT={variant}, but {has}: {CURE}"
    return ""


def check_plan(arguments: list[str]) -> None:
    """Exit where pip would bring CUDA's libraries, some gigabytes, for the CPU."""
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary, "report.json")
        pip_install(PYTHON, "--quiet", "--dry-run", "--report", str(report), *arguments)
        planned = [each["metadata"]["name"] for each in json.loads(report.read_text())["install"]]
    names = [name.lower().replace("_", "-") for name in planned]
    cuda = [name for name in names if name.startswith(CUDA_LIBRARIES)]
    if cuda:
        sys.exit("TORCH_VARIANT=cpu, but the index's torch is a build for CUDA, which brings"
                 f" {len(cuda)} packages such as {cuda[0]}: {CURE}")


def main(variant: str, index: str = "") -> None:
    if not re.fullmatch(r"cpu|cu\d*|none", variant):
        sys.exit(f"TORCH_VARIANT={variant}: it is one of cpu, none, or CUDA's version as cu126")
    (ROOT / "opt" / "byoa").mkdir(parents=True)
    if variant == "none":
        return
    arguments = ["--no-compile", "--root", str(ROOT), "--constraint", "constraints.txt",
                 "--requirement", "requirements/torch.txt"]
    if index:
        arguments += ["--extra-index-url", index]
    if variant == "cpu":
        check_plan(arguments)
    pip_install(PYTHON, *arguments)
    subprocess.run([PYTHON, "strip.py", str(ROOT)], check=True, timeout=1800)
    site = next(ROOT.glob("opt/byoa/lib/python3*/site-packages"))
    version, cuda = json.loads(subprocess.run(
        [PYTHON, "-c", TELL], env={"PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"},
        check=True, timeout=600, stdout=subprocess.PIPE,
    ).stdout)
    if wrong := mismatch(variant, version, cuda):
        sys.exit(wrong)
    print(f"torch {version} for {f'CUDA {cuda}' if cuda else 'the CPU'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
