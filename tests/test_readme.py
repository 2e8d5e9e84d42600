"""Every command and snippet of the README is run, in order, in one empty folder.

Blocks: ```sh is run by bash; ```python is run as a script, but for the algorithm, which is written
to its file; ```dockerfile is written to Dockerfile; ```text is output, of which nothing is run. The
first block (`make …`) is what CI and `tests/test_demo.py` run. The chapter that needs an engine is
a session of its own, on the files that the one before it has made.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_example_algorithm_is_the_built_in_file_byte_for_byte() -> None:
    example = next(
        body for language, body in BLOCK.findall(README)
        if language == "python" and "class NearestCentroid" in body
    )
    assert example == (ROOT / "algorithms" / "nearest_centroid.py").read_text(encoding="utf-8")


def test_every_block_says_what_it_is() -> None:
    languages = {language for language, _ in BLOCK.findall(README)}
    assert languages <= {"sh", "python", "text", "dockerfile"}


def test_the_readme_starts_with_the_two_commands() -> None:
    language, body = BLOCK.findall(README)[0]
    assert (language, body.split("\n")[0].split("#")[0].strip()) == ("sh", "make demo")
    assert "make test" in body


IN_DOCKER = "## In Docker"
needs_shell = pytest.mark.skipif(
    not (shutil.which("bash") and shutil.which("curl")), reason="the README's steps use both"
)


def _chapters() -> tuple[str, str]:
    """The README without the chapter that needs an engine, and that chapter."""
    before, _, after = README.partition(f"{IN_DOCKER}\n")
    chapter, _, rest = after.partition("\n## ")
    return before + rest, chapter


def _steps(text: str, folder: Path) -> Iterator[str]:
    """The commands of the blocks of `text`; the files that it shows are written to `folder`."""
    for number, (language, body) in enumerate(BLOCK.findall(text)):
        if language == "python" and "class NearestCentroid" in body:
            (folder / "nearest_centroid.py").write_text(body)
        elif language == "dockerfile":
            (folder / "Dockerfile").write_text(body)
        elif language == "python":
            script = folder.parent / f"block{number}.py"
            script.write_text(body)
            yield f"echo '== block {number}'\npython {script}"
        elif language == "sh":
            yield f"echo '== block {number}'\n{body}"


def _run(steps: list[str], folder: Path, environment: dict[str, str], seconds: float) -> None:
    """One session: later blocks use what earlier ones made."""
    session = ["set -euo pipefail", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT", *steps]
    environment = environment | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}",
        "HOME": str(folder.parent),
        "BYOA_HOME": str(folder.parent / "state"),
        "BYOA_PORT": "0",
    }
    try:
        ran = subprocess.run(
            ["bash", "-c", "\n".join(session)], cwd=folder, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds, check=False,
        )
    finally:
        subprocess.run(
            [sys.executable, "-m", "byoa.local.cli", "down"], env=environment, timeout=90,
            check=False,
        )
    assert ran.returncode == 0, ran.stdout


@needs_shell
def test_every_command_and_snippet_runs(
    tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    """Its port is a free one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    folder = tmp_path / "empty"
    folder.mkdir()
    first, *steps = _steps(_chapters()[0], folder)
    assert "make demo" in first
    _run([step.replace("8080", port) for step in steps], folder, clean_environment, 480)


@pytest.mark.docker
@needs_shell
def test_every_command_of_the_chapter_on_docker_runs(
    byoa_image: str, engine: Any, tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    """In a clone, as the chapter says of its script; images get a name of this test's own."""
    folder = tmp_path / "empty"
    folder.mkdir()
    rest, chapter = _chapters()
    made = next(step for step in _steps(rest, folder) if "digits.csv" in step)
    (folder / "build_and_push.sh").symlink_to(ROOT / "build_and_push.sh")
    name = f"byoa-test-{uuid.uuid4().hex[:8]}"
    (environment := dict(clean_environment)).pop("BYOA_RUNNER", None)
    steps = [step.replace("my-centroid", name) for step in _steps(chapter, folder)]
    try:
        _run([made, *steps], folder, environment, 500)
    finally:
        for each in engine.images.list(name):
            engine.images.remove(each.id, force=True)
