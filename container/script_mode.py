"""Script mode: the user's train.py with the SM_* variables and arguments of the training toolkit.

sagemaker-training gives the environment and the mapping of hyperparameters to arguments; the code
is fetched and the process supervised here: an argv without a shell, signals, a failure report.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import shutil
import sys
import tarfile
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from byoa.container import contract, launch, torchrun
from byoa.container.contract import InputDataConfig, Layout, ResourceConfig
from byoa.container.errors import AlgorithmError, UnsupportedError
from byoa.container.hardware import measure, oom_kills, size
from byoa.container.hosts import wait_for_hosts
from byoa.container.script_failure import report
from byoa.container.supervisor import run

SUBMIT_HYPERPARAMETER = "sagemaker_submit_directory"
SUBMIT_VARIABLE = "SAGEMAKER_SUBMIT_DIRECTORY"
TAIL_LINES = 400  # of the script's output, for the failure report


def train(
    layout: Layout, raw: Mapping[str, str], environ: Mapping[str, str],
    stopping: Callable[[], bool],
) -> int:
    """Fetch the code, install its requirements, run the script; the exit code.

    0 when the script's is 0, else 1 with the failure file written (TK-09); 143 for a script that
    SIGTERM ended because it has no handler of its own, or that SIGTERM kept from starting.
    """
    values = {name: contract.decode_hyperparameter(text) for name, text in raw.items()}
    _check_toolkit()
    launch.check(values)
    entry = str(
        values.get(contract.PROGRAM_HYPERPARAMETER) or environ.get(contract.PROGRAM_VARIABLE)
    )
    submitted = str(
        values.get(SUBMIT_HYPERPARAMETER) or environ.get(SUBMIT_VARIABLE) or layout.code
    )
    fetch(submitted, layout, environ, values.get("sagemaker_region"))
    check_entry(entry, layout.code)
    env, arguments = _toolkit(layout, values, entry, submitted, environ)
    resources = ResourceConfig.read(layout)
    hardware = measure(environ)
    _say(f"plan: script {entry} on {resources.current_host} ({resources.rank + 1} of"
         f" {len(resources.hosts)}): {hardware.describe()}; code {submitted}")
    if hardware.notice:
        _say(hardware.notice)
    launched = launch.plan(values, resources, len(hardware.gpus), env)
    if launched is not None:
        _say(launched.describe())
    _install_requirements(layout.code, env)
    if launched is not None:
        return torchrun.run(launched, layout, resources, entry, arguments, env, stopping)
    wait_for_hosts(resources, stopping=stopping, say=_say)
    if stopping():  # what came in before the script could get it
        _say(f"stopped before {entry} was started")
        return contract.EXIT_SIGTERM
    return _run(layout, entry, arguments, env)


# --- checks ---------------------------------------------------------------------------------------


def _check_toolkit() -> None:
    if importlib.util.find_spec("sagemaker_training") is None:
        raise AlgorithmError(
            "SCRIPT_MODE_MISSING",
            "script mode needs the package sagemaker-training, which is not installed",
            remedy="pip install 'byoa[script]' in the image, or set"
            f" {contract.ALGORITHM_VARIABLE} to an algorithm",
        )


def check_entry(entry: str, code: Path) -> None:
    """Raise unless `entry` is a Python file inside the code directory."""
    if not entry.endswith(".py"):
        raise UnsupportedError(
            "ENTRY_POINT_UNSUPPORTED", f"the entry point {entry!r} is not run here",
            expected="a Python file such as train.py",
            remedy="start the shell script or package from a train.py with subprocess or runpy",
        )
    if (code / "setup.py").exists():
        raise UnsupportedError(
            "PACKAGE_UNSUPPORTED", "setup.py makes the source a package, which is not installed",
            expected="train.py and modules beside it",
            remedy="remove setup.py and list what it requires in requirements.txt",
        )
    path = (code / entry).resolve()
    if code.resolve() not in path.parents:
        raise AlgorithmError(
            "ENTRY_POINT_OUTSIDE", f"the entry point {entry!r} is outside the source directory",
            expected="a path inside it, such as train.py or src/train.py",
        )
    if not path.is_file():
        have = sorted(p.relative_to(code).as_posix() for p in code.rglob("*.py"))
        near = difflib.get_close_matches(entry, have, n=1)
        raise AlgorithmError(
            "ENTRY_POINT_MISSING",
            f"the source has no {entry!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
            expected=f"one of {', '.join(have[:20]) or 'its Python files, of which it has none'}",
            remedy="name it in sagemaker_program (entry_point in the SDK)",
        )


# --- the code -------------------------------------------------------------------------------------


def fetch(source: str, layout: Layout, environ: Mapping[str, str], region: Any = None) -> None:
    """Bring the code into /opt/ml/code unless something is there already (TK-03)."""
    code = layout.code
    code.mkdir(parents=True, exist_ok=True)
    if any(code.iterdir()):
        return
    url = urlsplit(source)
    if url.scheme == "s3":
        with tempfile.TemporaryFile() as file:
            _download(url.netloc, url.path.lstrip("/"), file, environ, region, source)
            file.seek(0)
            _extract(file, code, source)
        return
    path = layout.inside(unquote(url.path) if url.scheme == "file" else source)
    if path.is_dir():
        if path.resolve() != code.resolve():
            shutil.copytree(path, code, dirs_exist_ok=True)
    elif path.is_file():
        with path.open("rb") as file:
            _extract(file, code, source)
    else:
        raise AlgorithmError(
            "SOURCE_MISSING", f"the source {source!r} does not exist",
            expected="an s3:// URI of a sourcedir.tar.gz, a directory or such a file",
            remedy=f"set {SUBMIT_HYPERPARAMETER}, or put the code in {contract.ROOT}/code",
        )


def _download(
    bucket: str, key: str, file: Any, environ: Mapping[str, str], region: Any, source: str
) -> None:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3",
        region_name=environ.get("AWS_REGION") or (str(region) if region else None),
        endpoint_url=environ.get("S3_ENDPOINT_URL") or None,  # TK-08
    )
    try:
        client.download_fileobj(bucket, key, file)
    except (BotoCoreError, ClientError) as error:
        raise AlgorithmError(
            "SOURCE_DOWNLOAD_FAILED", f"{source}: {error}",
            expected="an object that the job's role may read",
            remedy="under network isolation give the code as a channel instead, and"
            f" {SUBMIT_HYPERPARAMETER} as its directory",
        ) from None
    finally:
        client.close()


def _extract(file: Any, code: Path, source: str) -> None:
    try:
        with tarfile.open(fileobj=file, mode="r:*") as archive:
            archive.extractall(code, filter="data")  # refuses what would leave the directory
    except tarfile.TarError as error:
        raise AlgorithmError(
            "SOURCE_INVALID", f"{source} cannot be unpacked: {error}",
            expected="a tar.gz of the source directory's content",
        ) from None


# --- the toolkit ----------------------------------------------------------------------------------


def _toolkit(
    layout: Layout, values: Mapping[str, Any], entry: str, submitted: str,
    environ: Mapping[str, str],
) -> tuple[dict[str, str], list[str]]:
    """The script's environment and arguments (TK-05 … TK-08), as sagemaker-training makes them.

    That package takes /opt/ml from SAGEMAKER_BASE_DIR when it is imported, makes directories in
    the home directory where there is none, and writes variables into os.environ: all of it is
    contained here.
    """
    before = dict(os.environ)
    os.environ[contract.BASE_DIR_VARIABLE] = str(layout.root)
    os.environ[contract.PROGRAM_VARIABLE] = entry
    try:
        from sagemaker_training.environment import Environment

        toolkit = Environment(
            resource_config=ResourceConfig.read(layout).to_json(),
            input_data_config=InputDataConfig.read(layout).to_json(),
            hyperparameters=dict(values),
        )
        variables = dict(toolkit.to_env_vars())
        arguments = [str(each) for each in toolkit.to_cmd_args()]
        names = ("CURRENT_HOST", "SAGEMAKER_JOB_NAME", "SAGEMAKER_REGION")
        exported = {name: os.environ[name] for name in names if name in os.environ}
    finally:
        os.environ.clear()
        os.environ.update(before)
    path = [str(layout.code), *filter(None, environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {
        **environ,
        **exported,
        contract.PROGRAM_VARIABLE: entry,
        SUBMIT_VARIABLE: submitted,
        "SAGEMAKER_CONTAINER_LOG_LEVEL": str(values.get("sagemaker_container_log_level", 20)),
        **variables,
        "SM_MODULE_DIR": submitted,
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",  # a crash in C says where
    }, arguments


# --- running --------------------------------------------------------------------------------------


def _install_requirements(code: Path, env: Mapping[str, str]) -> None:
    """`pip install -r requirements.txt`, when the source has one (TK-12)."""
    if not (code / "requirements.txt").is_file():
        return
    _say(f"installing requirements.txt into {sys.prefix}")
    tail: deque[str] = deque(maxlen=TAIL_LINES)

    def on_line(line: str) -> None:
        tail.append(line)
        _say(line)

    ended = run(
        [sys.executable, "-m", "pip", "install", "-r", "requirements.txt"],
        env={**env, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"},
        cwd=code, on_line=on_line,
    )
    if ended.code != 0:
        wrong = [line for line in tail if line.startswith("ERROR:")] or list(tail)[-3:]
        raise AlgorithmError(
            "REQUIREMENTS_FAILED", f"pip ended with code {ended.code}: {' '.join(wrong)[:500]}",
            where="requirements.txt",
            expected="requirements that can be installed from where the container runs",
            remedy="put them into the image; under network isolation nothing can be downloaded",
        )
    _say(f"requirements.txt installed in {ended.seconds:.1f} s")


def _run(layout: Layout, entry: str, arguments: list[str], env: Mapping[str, str]) -> int:
    tail: deque[str] = deque(maxlen=TAIL_LINES)

    def on_line(line: str) -> None:
        tail.append(line)
        _say(line)

    killed_before = oom_kills() or 0
    ended = run(
        [sys.executable, entry, *arguments], env=env, cwd=layout.code, on_line=on_line,
        stop_grace=contract.TRAINING_STOP_GRACE_SECONDS,
    )
    if ended.code == 0:
        empty = "" if any(layout.model.rglob("*")) else f"; it left nothing in {layout.model}"
        _say(f"{entry} ended in {ended.seconds:.2f} s, peak memory"
             f" {size(ended.peak_rss_bytes)}{empty}")
        return contract.EXIT_SUCCESS
    if ended.code == contract.EXIT_SIGTERM and ended.signal is not None:
        _say(f"{entry} was ended by SIGTERM: handle it to save the model before the end")
        return contract.EXIT_SIGTERM
    text = report(entry, layout.code, ended, list(tail), (oom_kills() or 0) - killed_before)
    print(text.splitlines()[0], file=sys.stderr, flush=True)
    if not layout.failure.exists():  # the script may have written its own (TK-09)
        contract.write_failure(layout, text)
    return contract.EXIT_FAILURE


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
