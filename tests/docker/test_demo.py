"""The guided tour with Docker: image pushed, named by its URI, the same accuracy in the end."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def _tour(folder: Path, environment: dict[str, str], *argv: str) -> str:
    folder.mkdir()
    ran = subprocess.run(
        [sys.executable, "-m", "byoa.local.cli", "demo", *argv], cwd=folder,
        env=environment | {"TMPDIR": str(folder)}, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, timeout=500,
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


def test_the_tour_in_docker_ends_as_that_in_processes_and_leaves_nothing(
    engine: Any, byoa_image: str, clean_environment: dict[str, str], tmp_path: Path
) -> None:
    uri = f"123456789012.dkr.ecr.us-east-1.amazonaws.com/{byoa_image}"
    if engine.images.list(uri):
        pytest.fail(f"{uri} is in the engine already, so that this would prove no pull", False)
    printed = _tour(tmp_path / "docker", clean_environment, "--runner", "docker",
                    "--image", byoa_image)
    assert f"the jobs' image is {uri}" in printed
    in_processes = _tour(tmp_path / "process", clean_environment)
    # torch's order of additions, and so the last digit, may depend on its build.
    one, other = (float(re.findall(r"test accuracy: (\d\.\d+)", each)[-1])
                  for each in (printed, in_processes))
    assert one >= 0.97 and abs(one - other) <= 0.005, (one, other)
    assert not engine.images.list(uri)
    ours = engine.containers.list(
        all=True, ignore_removed=True, filters={"label": "byoa.home"}
    )
    assert not [each for each in ours if str(tmp_path) in each.labels["byoa.home"]]
    left = {each.name for each in (tmp_path / "docker").iterdir()}
    assert left == {"byoa-demo"}
