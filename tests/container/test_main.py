"""The entrypoint's commands (TRAIN-01, TRAIN-05, HOST-01, pain 6)."""

import os
import signal
import subprocess
import sys

from byoa.container.contract import ProcessingJobConfig


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


# --- any program of the image ---


def test_a_program_on_path_takes_the_place_of_the_entrypoint(tree):
    """`docker run IMAGE python -V`: its arguments, its exit code, its process."""
    program = "import os, sys; print(sys.argv[1:], os.getpid()); sys.exit(3)"
    with tree.start(os.path.basename(sys.executable), "-c", program, "--epochs", "3") as process:
        output, _ = process.communicate(timeout=60)
    assert output == f"['--epochs', '3'] {process.pid}\n"
    assert process.returncode == 3
    assert tree.failure is None


def test_a_program_gets_the_signals_that_a_shell_would_give_it(tree):
    """Python ignores SIGPIPE, and an exec would hand that on."""
    code, output = tree.run("grep", "SigIgn", "/proc/self/status")
    assert code == 0
    ignored = int(output.split()[1], 16)
    # Others may be ignored by whoever runs the tests.
    for each in (signal.SIGPIPE, signal.SIGXFSZ):
        assert not ignored >> (each - 1) & 1, each.name


def test_a_path_to_a_program_is_run(tree, tmp_path):
    script = tmp_path / "hello.sh"
    script.write_text('#!/bin/sh\necho "hello $1"\n')
    script.chmod(0o755)
    assert tree.run(str(script), "you") == (0, "hello you\n")


def test_a_file_without_the_executable_bit_is_refused_with_the_cure(tree, tmp_path):
    script = tmp_path / "hello.py"
    script.write_text("print(1)\n")
    code, output = tree.run(str(script))
    assert code == 126
    assert "[COMMAND_NOT_EXECUTABLE]" in output and f"python {script}" in output
    assert tree.failure.startswith(f"{script} is a file that may not be executed")


def test_a_script_that_names_no_interpreter_is_told_from_a_missing_one(tree, tmp_path):
    script = tmp_path / "bare"
    script.write_text("echo hello\n")
    script.chmod(0o755)
    code, output = tree.run(str(script))
    assert code == 126
    assert "Exec format error" in output and "`#!`" in output


def test_our_own_commands_come_before_programs_of_the_same_name(tree, tmp_path):
    """TRAIN-01: `train` is byoa's, whatever is on PATH."""
    program = tmp_path / "contract"
    program.write_text("#!/bin/sh\necho another\n")
    program.chmod(0o755)
    code, output = tree.run("contract", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert code == 0 and output.startswith("# The container contract")


def test_no_command_in_a_processing_job_says_how_one_is_given(tree):
    """PROC-01: ContainerArguments replace the missing command; the reason is the ExitMessage."""
    ProcessingJobConfig({"ProcessingJobName": "p1"}).write(tree.layout)
    done = subprocess.run(
        [sys.executable, "-m", "byoa.container"], env=tree.environ(), capture_output=True,
        text=True, timeout=60,
    )
    assert done.returncode == 1
    assert 'ContainerArguments=["process", "SCRIPT"]' in done.stderr
    assert tree.layout.message.read_text().startswith("no command was given")
    assert tree.failure is None
