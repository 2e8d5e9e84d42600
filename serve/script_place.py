"""Where the inference script of a model is: code/inference.py, or what SAGEMAKER_PROGRAM names
(ITK-01, ITK-02).

A script that is somewhere else is an error that shows where, and never passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from byoa.container.contract import ALGORITHM_VARIABLE, PROGRAM_VARIABLE
from byoa.container.errors import AlgorithmError
from byoa.container.manifest import MANIFEST
from byoa.container.script_source import SUBMIT_VARIABLE
from byoa.serve.model import contents

CODE = "code"
DEFAULT = "inference.py"
_LOOKED_AT = 1000  # entries of a model directory
_READ_CHARACTERS = 200_000
_HANDLER = re.compile(r"^def (model_fn|predict_fn|transform_fn|input_fn|output_fn)\b", re.MULTILINE)


def find(
    model_dir: Path, *, algorithm: str | None, program: str | None, code: Path | None
) -> Path | None:
    """The script; None where an algorithm is to answer. `code`: where SAGEMAKER_SUBMIT_DIRECTORY
    leads, None for the model's own code/.

    Raises AlgorithmError: ALGORITHM_AMBIGUOUS, INFERENCE_SCRIPT_MISSING, _MISPLACED.
    """
    place = code or model_dir / CODE
    if program:
        if algorithm:
            raise AlgorithmError(
                "ALGORITHM_AMBIGUOUS",
                f"{ALGORITHM_VARIABLE} is {algorithm!r} and {PROGRAM_VARIABLE} is {program!r}",
                expected="one of the two",
                remedy=f"to serve by the script remove {ALGORITHM_VARIABLE}; to serve"
                f" {algorithm!r} remove {PROGRAM_VARIABLE}",
            )
        if (place / program).is_file():
            return place / program
        raise _missing(model_dir, place, program)
    if algorithm or (model_dir / MANIFEST).is_file():
        return None
    if (place / DEFAULT).is_file():
        return place / DEFAULT
    _check_misplaced(model_dir, place)
    return None


def passed_over(model_dir: Path, program: str | None) -> str | None:
    """What to say of a script that is there but is not what answers."""
    script = model_dir / CODE / DEFAULT
    if program or not (model_dir / MANIFEST).is_file() or not _has_handlers(script):
        return None
    return (
        f"{CODE}/{DEFAULT} is not used: {MANIFEST} names the algorithm that answers; to answer by"
        f" the script, set {PROGRAM_VARIABLE}={DEFAULT}"
    )


def _missing(model_dir: Path, place: Path, program: str) -> AlgorithmError:
    elsewhere = _named(model_dir, Path(program).name)
    return AlgorithmError(
        "INFERENCE_SCRIPT_MISSING",
        f"{PROGRAM_VARIABLE} is {program!r}, and there is no {place / program}; {contents(place)}"
        + ("" if place.is_relative_to(model_dir) else f"; {contents(model_dir)}"),
        where=str(place),
        expected=f"{CODE}/{program} in model.tar.gz, or in what {SUBMIT_VARIABLE} leads to",
        remedy=_move(elsewhere, program) if elsewhere else
        f"correct {PROGRAM_VARIABLE}, or put the file there",
    )


def _check_misplaced(model_dir: Path, place: Path) -> None:
    elsewhere = _named(model_dir, DEFAULT)
    if elsewhere is not None:
        raise AlgorithmError(
            "INFERENCE_SCRIPT_MISPLACED",
            f"the inference script is {elsewhere}, expected {CODE}/{DEFAULT}; "
            + contents(model_dir),
            where=str(model_dir), expected=f"{CODE}/{DEFAULT} at the root of model.tar.gz",
            remedy=_move(elsewhere, DEFAULT),
        )
    others = [path for path in sorted(place.glob("*.py")) if _has_handlers(path)]
    if others:
        name = others[0].name
        raise AlgorithmError(
            "INFERENCE_SCRIPT_MISPLACED",
            f"{CODE}/{name} has an inference script's functions, but not its name; "
            + contents(model_dir),
            where=str(model_dir), expected=f"{CODE}/{DEFAULT}, or {PROGRAM_VARIABLE}",
            remedy=f"rename it: mv {CODE}/{name} {CODE}/{DEFAULT}; or set"
            f" {PROGRAM_VARIABLE}={name}",
        )


def _named(model_dir: Path, name: str) -> str | None:
    """The first file of this name, in whatever case, below the directory."""
    found = sorted(
        str(path.relative_to(model_dir)) for path in _files(model_dir)
        if path.name.lower() == name.lower()
    )
    return found[0] if found else None


def _files(directory: Path) -> Iterator[Path]:
    return (path for path in islice(directory.rglob("*.py"), _LOOKED_AT) if path.is_file())


def _move(elsewhere: str, program: str) -> str:
    root, _, rest = elsewhere.partition(f"/{CODE}/")
    if rest == program:  # a directory around all of it
        return f"pack it without the directory: tar -C {root} -czf model.tar.gz ."
    return f"before packing: mkdir -p {CODE} && mv {elsewhere} {CODE}/{program}"


def _has_handlers(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return _HANDLER.search(file.read(_READ_CHARACTERS)) is not None
    except OSError:
        return False
