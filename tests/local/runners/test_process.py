"""Containers as processes: environment, signals, output, ends, and life after the server's."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from byoa.container.errors import ByoaError, UnsupportedError
from byoa.local.runners import identity
from byoa.local.runners.process import ProcessRunner


def test_the_environment_is_clean_and_the_platforms_names_win(
    process_runner: Any, spec: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRAIN-83; the person's own credentials and settings do not come in."""
    monkeypatch.setenv("AWS_PROFILE", "private")
    monkeypatch.setenv("MY_SECRET", "private")
    box = spec(
        "print(json.dumps(dict(os.environ)))",
        environment={"A": "1", "SAGEMAKER_BASE_DIR": "/x", "SAGEMAKER_BIND_TO_PORT": "1"},
    )
    run(process_runner, box)
    found = json.loads(box.log.read_text())

    assert found["A"] == "1" and found["LANG"] == "C.UTF-8"
    assert found.get("SAGEMAKER_BASE_DIR") in (None, str(box.ml))
    assert "SAGEMAKER_BIND_TO_PORT" not in found  # nothing is published
    own, machine = found["PATH"].split(os.pathsep)[:2]
    assert Path(own).parent == Path(found["VIRTUAL_ENV"])  # of this container alone
    assert machine == os.path.dirname(sys.executable)
    assert not {"AWS_PROFILE", "MY_SECRET"} & found.keys()
    assert found["HOME"] != os.environ.get("HOME")
    assert not Path(found["TMPDIR"]).exists()  # removed with the container


def test_a_container_starts_in_the_folder_of_its_code(
    process_runner: Any, spec: Any, run: Any
) -> None:
    box = spec("print(os.getcwd())")

    assert run(process_runner, box).peak_rss_bytes > 1_000_000
    assert Path(box.log.read_text().strip()) in (Path("/opt/ml/code"), box.ml / "code")


def test_a_termination_before_the_program_has_begun_is_not_lost(
    process_runner: Any, spec: Any
) -> None:
    container = process_runner.start(spec("time.sleep(60)"))
    container.terminate()

    assert container.wait(20).signal == signal.SIGTERM
    container.remove()


def test_nothing_outlives_the_first_process_not_even_a_daemon(
    process_runner: Any, spec: Any, until: Any
) -> None:
    box = spec(
        """
        orphan = subprocess.Popen(['sleep', '60'])
        daemon = subprocess.Popen(['sleep', '60'], start_new_session=True)
        print(orphan.pid, daemon.pid, flush=True)
        time.sleep(0.3)
        """
    )
    container = process_runner.start(box)
    until(lambda: box.log.exists() and box.log.read_text().endswith("\n"))
    pids = [int(pid) for pid in box.log.read_text().split()]
    assert all(identity.start_time(pid) for pid in pids)

    assert container.wait(20).code == 0
    assert [identity.start_time(pid) for pid in pids] == [None, None]
    container.remove()


# --- a server that goes -------------------------------------------------------------------------


def test_a_container_whose_shim_is_killed_does_not_run_on(
    plain_runner: Any, spec: Any, start_ready: Any, until: Any
) -> None:
    box = spec("print('ready', os.getpid(), flush=True)\ntime.sleep(60)")
    container = start_ready(plain_runner, box)
    pid = int(box.log.read_text().split()[1])
    os.kill(container._pid, signal.SIGKILL)

    assert container.wait(20).code == 137
    until(lambda: identity.start_time(pid) is None)


def test_a_container_that_has_vanished_is_not_adopted(plain_runner: Any, spec: Any) -> None:
    container = plain_runner.start(spec("time.sleep(60)"))
    container.kill()
    container.wait(20)
    (container._directory / "exit.json").unlink()

    assert plain_runner.adopt(container.handle) is None


def test_a_process_that_serves_is_never_isolated(process_runner: Any, spec: Any) -> None:
    """TRAIN-12: never accepted and ignored."""
    with pytest.raises(UnsupportedError, match="serves.*BYOA_RUNNER=docker"):
        process_runner.check("byoa", isolated=True, serves=True)
    with pytest.raises(UnsupportedError, match="serves"):
        process_runner.start(spec("", isolated=True, port=8080))


# --- images and isolation -----------------------------------------------------------------------


def test_a_registered_image_runs_in_its_folder_with_its_algorithm(
    process_runner: Any, images: Any, spec: Any, run: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "model.py").write_text(
        "from byoa.algorithms import Algorithm\nclass Mine(Algorithm):\n    pass\n"
    )
    images.add("mine", folder)
    box = spec(
        "print(json.dumps([os.getcwd(), os.environ['BYOA_ALGORITHM'], sys.path]))", image="mine:2",
        environment={"PYTHONPATH": "/extra"},
    )
    assert run(process_runner, box).code == 0, box.log.read_text()
    cwd, algorithm, path = json.loads(box.log.read_text())

    assert cwd == str(folder) and algorithm == "model:Mine"
    assert path.index(str(folder)) < path.index("/extra")
    own = spec("print(os.environ['BYOA_ALGORITHM'])", "own", image="mine",
               environment={"BYOA_ALGORITHM": "other:Class"})
    run(process_runner, own)
    assert own.log.read_text() == "other:Class\n"


def test_an_unknown_image_is_refused_naming_what_there_is(
    plain_runner: Any, images: Any, spec: Any, tmp_path: Path
) -> None:
    (tmp_path / "known").mkdir()
    (tmp_path / "known" / "a.py").write_text(
        "from byoa.algorithms import Algorithm\nclass A(Algorithm): ...\n"
    )
    images.add("known", tmp_path / "known")

    with pytest.raises(UnsupportedError, match="known.*byoa image add team/xgboost FOLDER"):
        plain_runner.check("registry.example.com:5000/team/xgboost:1")
    with pytest.raises(UnsupportedError):
        plain_runner.start(spec("", image="python:3.12"))


def test_what_an_entrypoint_installs_leaves_this_machine_s_python_alone(
    process_runner: Any, spec: Any, run: Any
) -> None:
    """As the SDK's drivers do: `pip install` in the container, whose environment goes with it."""
    box = spec("", entrypoint=("/bin/sh", "-c", """
        python -c 'import sys, sysconfig; print(sysconfig.get_path("purelib"))'
        python -c 'import numpy; print("numpy is there")'
        python -m pip --version
    """))
    assert run(process_runner, box).code == 0
    place, numpy, pip = box.log.read_text().splitlines()
    assert not Path(place).is_relative_to(sys.prefix)
    assert not Path(place).exists(), "it goes with the container"
    assert numpy == "numpy is there" and pip.startswith("pip ")


def test_a_text_that_names_opt_ml_needs_a_real_one(
    plain_runner: Any, images: Any, tmp_path: Path, sandbox_available: bool
) -> None:
    """TRAIN-02: what the SDK v3 sends, and what a shell's own text could not be given."""
    program = ("/bin/bash", "-c", "chmod +x /opt/ml/input/data/code/run.sh")
    with pytest.raises(UnsupportedError, match="ENTRYPOINT_UNAVAILABLE"):
        plain_runner.check("byoa", program=program)
    plain_runner.check("byoa", program=("/bin/bash", "/opt/ml/input/data/code/run.sh"))
    if sandbox_available:
        ProcessRunner(images, tmp_path).check("byoa", program=program)


def test_isolation_is_refused_where_there_are_no_namespaces(plain_runner: Any, spec: Any) -> None:
    """TRAIN-12: never accepted and ignored."""
    with pytest.raises(UnsupportedError, match="BYOA_SANDBOX is off"):
        plain_runner.check("byoa", isolated=True)
    with pytest.raises(UnsupportedError):
        plain_runner.start(spec("", isolated=True))


def test_a_private_opt_ml_keeps_the_other_entries_of_opt_and_hides_nothing_outside(
    images: Any, spec: Any, tmp_path: Path, sandbox_available: bool
) -> None:
    if not sandbox_available:
        pytest.skip("the kernel allows no namespaces here")
    process_runner = ProcessRunner(images, tmp_path / "home")
    before = sorted(os.listdir("/opt"))
    first = spec(
        "print(sorted(os.listdir('/opt')), 'SAGEMAKER_BASE_DIR' in os.environ, flush=True)\n"
        "pathlib.Path('/opt/ml/model/first').touch(); time.sleep(1)", "first",
    )
    second = spec("pathlib.Path('/opt/ml/model/second').touch()", "second")
    containers = [process_runner.start(first), process_runner.start(second)]
    assert [container.wait(20).code for container in containers] == [0, 0]

    assert first.log.read_text() == f"{sorted({*before, 'ml'})} False\n"
    assert [path.name for path in (first.ml / "model").iterdir()] == ["first"]
    assert [path.name for path in (second.ml / "model").iterdir()] == ["second"]
    assert sorted(os.listdir("/opt")) == before
    for container in containers:
        container.remove()


def test_a_wrong_setting_is_refused(images: Any, tmp_path: Path) -> None:
    with pytest.raises(ByoaError, match="BYOA_SANDBOX is 'on'; expected: auto or off"):
        ProcessRunner(images, tmp_path, sandbox="on")
