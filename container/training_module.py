"""`python -m byoa.container.training_module MODULE:FUNCTION`: a framework's own training program.

SAGEMAKER_TRAINING_MODULE names it (TK-01). It reads the platform's files, and fetches and starts
the author's script, by itself, as it does under SageMaker's training toolkit.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from byoa.container.errors import AlgorithmError


def split(name: str) -> tuple[str, str]:
    """Module and function of `module:function`."""
    module, colon, function = name.partition(":")
    if not (module and colon and function.isidentifier()):
        raise AlgorithmError(
            "TRAINING_MODULE_INVALID", f"{name!r} names no function",
            where="SAGEMAKER_TRAINING_MODULE", expected="module:function",
            remedy="remove the variable to run the script of sagemaker_program directly",
        )
    return module, function


def main(name: str) -> Any:
    """Call the function without arguments, as the toolkit does."""
    module, function = split(name)
    return getattr(importlib.import_module(module), function)()


if __name__ == "__main__":
    main(sys.argv[1])
