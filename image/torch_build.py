"""Tell whether the installed torch is the build that was asked for: `torch_build.py VARIANT`."""

from __future__ import annotations

import importlib
import sys
from typing import Any

CURE = ("give TORCH_INDEX=<address of that build's index>, or put that build's wheel in wheels/"
        " (and empty wheels/ of the other)")


def mismatch(variant: str, version: str, cuda: str | None) -> str:
    """What is wrong with torch `version`, built for `cuda` (None: CPU); "" where it is `variant`.

    A variant is `cpu`, `cu` (any CUDA) or `cu126` (CUDA 12.6).
    """
    has = f"torch {version} is a build for {f'CUDA {cuda}' if cuda else 'CPU only'}"
    if variant == "cpu":
        return "" if cuda is None else f"TORCH_VARIANT=cpu, but {has}: {CURE}"
    if cuda is None or not f"cu{cuda.replace('.', '')}".startswith(variant):
        return f"TORCH_VARIANT={variant}, but {has}: {CURE}"
    return ""


def main(variant: str) -> None:
    torch: Any = importlib.import_module("torch")
    wrong = mismatch(variant, torch.__version__, torch.version.cuda)
    if wrong:
        sys.exit(wrong)
    print(f"torch {torch.__version__}: {torch.version.cuda or 'CPU'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
