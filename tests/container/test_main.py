"""The entrypoint's commands (TRAIN-01, TRAIN-05, HOST-01, pain 6)."""

import os
import subprocess
import sys


def test_a_mistyped_command_is_corrected(tree):
    code, output = tree.run("trian")
    assert code == 1
    assert "did you mean 'train'?" in output and "[COMMAND_UNKNOWN]" in output
    assert tree.failure.startswith("there is no command 'trian'")


def test_no_command_says_how_the_image_is_run(tree):
    done = subprocess.run(
        [sys.executable, "-m", "byoa.container"], env=tree.environ(), capture_output=True,
        text=True, timeout=60,
    )
    assert done.returncode == 1
    assert "docker run IMAGE train" in done.stderr and "[COMMAND_MISSING]" in done.stderr


def test_further_arguments_are_refused(tree):
    """What the platform passes as ContainerArguments is not ignored (TRAIN-03)."""
    code, output = tree.run("train", "--epochs", "3")
    assert code == 1
    assert "train takes no arguments, given ['--epochs', '3']" in output


def test_an_unknown_command_elsewhere_than_on_the_platform_makes_no_tree(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "byoa.container", "server"], capture_output=True, text=True,
        env={**os.environ, "SAGEMAKER_BASE_DIR": str(tmp_path / "ml")}, timeout=60,
    )
    assert done.returncode == 1
    assert "did you mean 'serve'?" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_contract_is_printed_as_markdown(tree):
    code, output = tree.run("contract")
    assert code == 0
    assert output.startswith("# The container contract\n")
    assert "| `TRAINING_JOB_NAME` |" in output


def test_serve_takes_the_place_of_the_entrypoint(monkeypatch):
    """TRAIN-05, HOST-03: the same process, so that SIGTERM reaches the server."""
    from byoa.container.__main__ import main

    calls = []

    class Replaced(Exception):
        pass

    def execv(path, argv):
        calls.append((path, argv))
        raise Replaced

    monkeypatch.setattr(os, "execv", execv)
    try:
        main(["serve"])
    except Replaced:
        pass
    assert calls == [(sys.executable, [sys.executable, "-m", "byoa.serve"])]
