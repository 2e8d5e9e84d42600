"""Every command and snippet of the README is run, in order, in one empty folder.

Blocks: ```sh is run by bash; ```python is run as a script, or written to the file that a comment
in its first line names; ```text is output, of which nothing is run. The first block (`make …`) is
what CI and `tests/test_demo.py` run.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

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
    assert languages <= {"sh", "python", "text"}


def test_the_readme_starts_with_the_two_commands() -> None:
    language, body = BLOCK.findall(README)[0]
    assert (language, body.split("\n")[0].split("#")[0].strip()) == ("sh", "make demo")
    assert "make test" in body


@pytest.mark.skipif(
    not (shutil.which("bash") and shutil.which("curl")), reason="the README's steps use both"
)
def test_every_command_and_snippet_runs(
    tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    """One session: later blocks use what earlier ones made. Its port is a free one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    session = ["set -euo pipefail", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
    folder = tmp_path / "empty"
    folder.mkdir()
    for number, (language, body) in enumerate(BLOCK.findall(README)[1:], 2):
        if language == "python" and "class NearestCentroid" in body:
            (folder / "nearest_centroid.py").write_text(body)
        elif language == "python":
            (tmp_path / f"block{number}.py").write_text(body)
            session += [f"echo '== block {number}'", f"python {tmp_path / f'block{number}.py'}"]
        elif language == "sh":
            session += [f"echo '== block {number}'", body.replace("8080", port)]
    environment = clean_environment | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{clean_environment['PATH']}",
        "HOME": str(tmp_path),
        "BYOA_HOME": str(tmp_path / "state"),
        "BYOA_PORT": "0",
    }
    try:
        ran = subprocess.run(
            ["bash", "-c", "\n".join(session)], cwd=folder, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=240, check=False,
        )
    finally:
        subprocess.run(
            [sys.executable, "-m", "byoa.local.cli", "down"], env=environment, timeout=90,
            check=False,
        )
    assert ran.returncode == 0, ran.stdout
