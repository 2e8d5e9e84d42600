"""From a model directory to what answers: an algorithm with its model, or an inference script."""

from __future__ import annotations

from pathlib import Path

from byoa.container import account
from byoa.container.errors import AlgorithmError
from byoa.serve import script_place
from byoa.serve.inference_script import InferenceScript
from byoa.serve.inference_script import load as load_script
from byoa.serve.model import Loaded, load_algorithm


def load(
    model_dir: Path, *, algorithm: str | None = None, program: str | None = None,
    code: Path | None = None, device: str = "cpu", alone: bool = True, sessions: bool = False,
) -> Loaded | InferenceScript:
    """Load the model in `model_dir`; `algorithm` overrides the one that its manifest names,
    `program` and `code` are as in `script_place.find`.

    Where it is not `alone` in the process, the modules that it brings in `code/` are its own:
    another model may bring others of the same names. They import what they need at their top.

    Raises AlgorithmError for a directory without a model that can be served, and whatever the
    algorithm or script itself raises.
    """
    try:
        if not alone:
            _check_requirements(model_dir)
        path = script_place.find(model_dir, algorithm=algorithm, program=program, code=code)
        if path is not None:
            return load_script(path, model_dir, device, alone=alone)
        if sessions:
            raise AlgorithmError(
                "SESSIONS_UNSUPPORTED", "stateful sessions are on, and an algorithm is to answer",
                expected="an inference script: an algorithm's predict is not given a session",
                remedy="remove SAGEMAKER_ENABLE_STATEFUL_SESSIONS, or answer by code/inference.py",
            )
        return load_algorithm(model_dir, algorithm=algorithm, device=device, alone=alone)
    except (OSError, AlgorithmError) as error:
        # A library may well call a file missing that it only may not open.
        closed = account.unreadable(model_dir)
        if closed is None:
            raise
        raise AlgorithmError(
            "MODEL_FILE_UNREADABLE",
            f"{closed} is {account.describe(closed)}: {account.own()}, who serves it, may not read"
            f" it ({type(error).__name__}:"
            f" {error.strerror if isinstance(error, OSError) else error})",
            where=str(model_dir),
            expected="files that every user can read, as SageMaker extracts them",
            remedy="chmod -R a+rX the model's files before they are archived, or start the"
            " container as root, as SageMaker does: then they are served as root",
        ) from None


def _check_requirements(model_dir: Path) -> None:
    file = model_dir / script_place.CODE / "requirements.txt"
    if file.is_file():
        raise AlgorithmError(
            "MODEL_REQUIREMENTS_UNSUPPORTED",
            "a model among many brings a requirements.txt of its own",
            where=str(file), expected="packages that all models share",
            remedy="install them in the image, and leave the file out of the archive",
        )
