"""A script's output and its end, with real processes: bytes, signals, the grace (TRAIN-150)."""

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

QUOTED = {"sagemaker_program": '"train.py"'}
# The entrypoint with a shorter grace than the service's 120 s.
IMPATIENT = """
import sys
from byoa.container import contract
contract.TRAINING_STOP_GRACE_SECONDS = 1.5
from byoa.container.__main__ import main
sys.exit(main(["train"]))
"""


@pytest.fixture
def script(tree):
    """Write the user's source into the code directory, and name it."""
    def write(source, name="train.py"):
        path = tree.layout.code / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source).lstrip())
        tree.hyperparameters({"sagemaker_program": f'"{name}"'})

    return write


def raw_output(tree):
    """All that the container printed, and its exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "byoa.container", "train"], env=tree.environ(), timeout=60,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    return done.stdout, done.returncode


def between(output):
    """The script's own part: after the plan's line, before the last."""
    _, _, rest = output.partition(b"\n")
    return rest


def test_a_line_of_a_megabyte_is_whole(tree, script):
    script("import sys; sys.stdout.write('x' * 1_000_000 + 'é' + 'y' * 48_576 + '\\n')\n")
    output, code = raw_output(tree)
    assert code == 0
    assert max(output.split(b"\n"), key=len) == b"x" * 1_000_000 + "é".encode() + b"y" * 48_576


def test_a_hundred_thousand_lines_are_all_there_in_order(tree, script):
    script("""
        import sys
        for number in range(100_000):
            print(f"line {number}", file=sys.stderr if number % 2 else sys.stdout)
    """)
    output, code = raw_output(tree)
    assert code == 0
    expected = "".join(f"line {number}\n" for number in range(100_000)).encode()
    assert hashlib.sha256(between(output)[: len(expected)]).digest() == hashlib.sha256(
        expected
    ).digest()


def test_bytes_that_are_no_text_pass_unchanged(tree, script):
    script("import os; os.write(1, bytes(range(256)) * 3 + b'\\n')\n")
    output, code = raw_output(tree)
    assert code == 0
    assert bytes(range(256)) * 3 in output


def test_output_without_an_end_of_line_is_shown_at_once_and_ended(tree, script):
    """Pain 31: a progress bar is seen while it moves."""
    script("""
        import sys, time
        sys.stdout.write("\\r10 %"); sys.stdout.flush()
        time.sleep(60)
    """)
    with tree.start() as process:
        seen = ""
        while "10 %" not in seen:
            character = process.stdout.read(1)
            assert character, seen
            seen += character
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=30)
    assert rest.startswith("\ntrain.py was ended by SIGTERM")
    script("print('done', end='')\n")
    output, code = raw_output(tree)
    assert code == 0
    assert b"done\ntrain.py ended in " in output


def test_a_reader_that_is_slow_loses_nothing_though_it_made_the_pipe_not_wait(tree, script):
    script("import sys; sys.stdout.write('x' * 3_000_000 + '\\n')\n")
    read, write = os.pipe()
    os.set_blocking(write, False)
    with open(read, "rb") as output, subprocess.Popen(
        [sys.executable, "-m", "byoa.container", "train"], env=tree.environ(), stdout=write,
        stderr=subprocess.STDOUT,
    ) as process:
        os.close(write)
        time.sleep(1.0)  # the pipe is full
        found = output.read()
    assert process.returncode == 0, found[-500:]
    assert found.count(b"x") >= 3_000_000


def test_what_grandchildren_print_is_there_and_they_are_reaped(tree, script):
    script("""
        import subprocess, sys
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.5); print('late')"])
        subprocess.run([sys.executable, "-c", "print('inner')"])
        orphan = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        print("orphan", orphan.pid)
    """)
    output, code = raw_output(tree)
    assert code == 0
    lines = output.decode().splitlines()
    assert "inner" in lines and "late" in lines
    pid = next(int(line.split()[1]) for line in lines if line.startswith("orphan"))
    until = time.monotonic() + 30  # it was killed; its end takes a moment
    while (state := state_of(pid)) not in ("gone", "Z") and time.monotonic() < until:
        time.sleep(0.01)
    assert state in ("gone", "Z"), "killed; a machine whose first process reaps shows no zombie"


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "gone"


def _stop_when_ready(process, ready="ready\n"):
    for line in process.stdout:
        if line == ready:
            break
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    return output


SAVES = """
    import os, signal, sys, time
    def save(*_):
        time.sleep({pause})
        open(os.path.join(os.environ["SM_MODEL_DIR"], "model.txt"), "w").write("early")
        sys.exit(0)
    signal.signal(signal.SIGTERM, save)
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("how", ["script", "module", "shell", "exec"])
def test_sigterm_reaches_the_program_which_saves(tree, script, how):
    """TRAIN-151, pain 9: also one that a shell waits for, which dies of the signal itself and
    leaves the program the rest of the grace."""
    script(SAVES.format(pause=7 if how == "shell" else 0), "fit/train.py")
    if how == "module":
        tree.hyperparameters({"sagemaker_program": '"fit.train"'})
    if how in ("shell", "exec"):
        first = "exec " if how == "exec" else ""
        script(f"#!/bin/sh\n{first}python fit/train.py \"$@\"\n", "run.sh")
    with tree.start() as process:
        output = _stop_when_ready(process)
    assert tree.model == {"model.txt"}, output
    assert process.returncode == (143 if how == "shell" else 0)
    assert tree.failure is None
    assert "handle it" not in output


@pytest.mark.parametrize("name", ["train.py", "run.sh"])
def test_a_program_that_ignores_sigterm_is_killed_at_the_end_of_the_grace(tree, script, name):
    """TRAIN-150: 120 s on the service, less here."""
    script("""
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("ready", flush=True)
        time.sleep(60)
    """)
    if name == "run.sh":
        script("trap '' TERM\npython train.py\n", name)
    with subprocess.Popen(
        [sys.executable, "-c", IMPATIENT], env=tree.environ(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:
        _stop_when_ready(process)
    assert process.returncode == 1
    assert tree.failure.startswith(
        f"SIGKILL: {name} was still running 1.5 s after SIGTERM, and was killed"
    )


def test_a_killed_child_of_a_shell_is_told_from_one_that_memory_ended(tree, script):
    """TRAP-24, TRAIN-144"""
    script("python -c 'import os; os.kill(os.getpid(), 9)'\n", "run.sh")
    assert raw_output(tree)[1] == 1
    assert tree.failure.startswith("SIGKILL: a process of run.sh was killed by signal 9, not for")
