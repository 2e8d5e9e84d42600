"""What the checker makes of exit codes and logs, without an engine."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from byoa.container.contract import Layout
from byoa.container.supervisor import Exit
from byoa.local.check.image_facts import ImageFacts
from byoa.local.check.image_files import Entry
from byoa.local.check.training_causes import exceptions_in, needs_network, start_fault, why
from byoa.local.check.training_checks import _meaning
from byoa.local.check.training_runs import TrainingRun
from byoa.local.check.training_stop import progress, stretched
from byoa.local.check.training_variants import requoted


def _run(layout: Layout, code: int | None, log: str = "", **more: bool) -> TrainingRun:
    ended = None if code is None else Exit(code, **more)
    return TrainingRun(layout, ended, log, seconds=1.0, limit=60.0)


def _facts(
    architecture: str = "", entrypoint: tuple[str, ...] = ("/opt/program/train",), user: str = ""
) -> ImageFacts:
    own = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    facts = object.__new__(ImageFacts)
    for name, value in (("architecture", architecture or own), ("entrypoint", entrypoint),
                        ("user", user), ("files", _Files())):
        object.__setattr__(facts, name, value)
    return facts


class _Files:
    """An image's files below one folder."""

    def __init__(self, *paths: str) -> None:
        self._paths = paths

    def below(self, folder: str) -> list[Entry]:
        return [Entry(each, 0o100644, 1, 0) for each in self._paths
                if each.startswith(f"{folder}/")]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path)
    made.create()
    return made


@pytest.mark.parametrize(
    ("code", "log", "words"),
    [
        (127, 'exec: "train": executable file not found in $PATH', "called `train` on PATH"),
        (126, 'exec: "/opt/program/train": permission denied', "may not be executed"),
        (127, r"/usr/bin/env: 'python\r': No such file or directory", "carriage return"),
        (127, "sh: 1: pyhton: not found", "pyhton"),
        (1, "exec /opt/program/train: exec format error", "without a first line #!"),
    ],
)
def test_a_program_that_does_not_start_is_told_by_its_exit_code_and_log(
    layout: Layout, code: int, log: str, words: str
) -> None:
    """TRAP-01, TRAP-02, TRAP-04."""
    entrypoint = () if '"train"' in log else ("/opt/program/train",)
    fault = start_fault(_run(layout, code, log), _facts(entrypoint=entrypoint))
    assert fault is not None
    assert words in fault.cause


def test_an_image_for_another_processor_is_told_from_a_script_without_a_first_line(
    layout: Layout,
) -> None:
    """TRAP-04."""
    fault = start_fault(_run(layout, 1, "exec format error"), _facts("riscv64"))
    assert fault is not None
    assert "for riscv64, this machine is" in fault.cause


def test_a_program_that_starts_and_fails_has_no_fault_of_its_start(layout: Layout) -> None:
    assert start_fault(_run(layout, 1, "ValueError: no"), _facts()) is None


def test_the_most_telling_evidence_comes_first(layout: Layout) -> None:
    """TRAP-24: memory by the engine's word, /dev/shm by the bus error; else what was written."""
    assert "memory ran out" in why(_run(layout, 137, out_of_memory=True), None).cause
    assert "/dev/shm" in why(_run(layout, 135), None).cause
    assert "something killed it" in why(_run(layout, 137, "epoch 1"), None).cause
    assert "still ran after 60 s" in why(_run(layout, None), None).cause
    log = "Traceback\nKeyError: 'a'\nfinished"
    assert why(_run(layout, 1, log), None).cause == "exit code 1: KeyError: 'a'"
    layout.failure.write_text("channel 'train' is empty\nTraceback")
    assert why(_run(layout, 1, log), None).cause == "exit code 1: channel 'train' is empty"


def test_a_user_without_rights_is_named_where_something_was_denied(layout: Layout) -> None:
    """TRAIN-08: /opt/ml belongs to root."""
    run = _run(layout, 1, "PermissionError: [Errno 13] Permission denied: '/opt/ml/model/m'")
    assert "user '1000'" in why(run, _facts(user="1000")).cause
    assert "user" not in why(run, _facts()).cause


@pytest.mark.parametrize(
    ("log", "path"),
    [
        ("ModuleNotFoundError: No module named 'constants'", "/opt/ml/code/constants.py"),
        ("ModuleNotFoundError: No module named 'nets.deep'", "/opt/ml/code/nets/__init__.py"),
        ("can't open file '/opt/ml/code/main.py': [Errno 2]", "/opt/ml/code/main.py"),
        ("ModuleNotFoundError: No module named 'torch'", None),
    ],
)
def test_a_file_that_the_mount_hides_is_named_where_the_log_misses_it(
    layout: Layout, log: str, path: str | None
) -> None:
    """TRAIN-07, TRAP-11."""
    facts = _facts()
    hidden = _Files("/opt/ml/code/constants.py", "/opt/ml/code/nets/__init__.py",
                    "/opt/ml/code/main.py")
    object.__setattr__(facts, "files", hidden)
    cause = why(_run(layout, 1, log), facts).cause
    assert ("hides" in cause) == (path is not None)
    assert path is None or f"the image has {path}," in cause


@pytest.mark.parametrize(
    ("code", "signal"),
    [(1, None), (125, None), (128, None), (137, 9), (139, 11), (159, 31), (160, None), (255, None)],
)
def test_only_a_code_that_a_signal_gives_is_taken_for_one(code: int, signal: int | None) -> None:
    """TRAIN-144: 255 is sys.exit(-1), which samples of AWS end with."""
    assert _meaning(code) == ("" if signal is None else f"that signal {signal} killed it")
    assert _meaning(126) and _meaning(127)


def test_exceptions_are_found_with_their_modules() -> None:
    log = "x\nbotocore.exceptions.NoCredentialsError: Unable\n  File y\nKeyError: 'z'\nError rate 1"
    assert exceptions_in(log) == ["botocore.exceptions.NoCredentialsError: Unable",
                                  "KeyError: 'z'"]


def test_a_wait_for_the_network_is_seen_in_the_log(layout: Layout) -> None:
    """TRAP-52."""
    line = "urllib3: Temporary failure in name resolution"
    assert needs_network(_run(layout, 1, f"a\n{line}\nb")) == line
    assert needs_network(_run(layout, 1, "pipeline of steps failed")) is None


def test_hyperparameters_are_sent_as_the_other_kind_of_client_does() -> None:
    """TRAIN-42, TRAP-12."""
    given = {"epochs": "10", "optimizer": "adam", "quoted": '"sgd"'}
    assert requoted(given) == {"epochs": '"10"', "optimizer": '"adam"', "quoted": "sgd"}


def test_counts_of_work_are_multiplied_and_nothing_else() -> None:
    given = {"num_epochs": "3", "lr": "1", "epochs": "-1", "max_iter": "1.5", "n_estimators": "2"}
    assert stretched(given) == {**given, "num_epochs": "3000", "n_estimators": "2000"}
    assert stretched({"lr": "1"}) is None


def test_progress_is_what_is_alike_but_for_its_numbers() -> None:
    log = "epoch=1 loss=0.5\nwarming up\nepoch=2 loss=1e-3\nstep 1"
    assert progress(log) == ["epoch=1 loss=0.5", "epoch=2 loss=1e-3"]
    assert progress("done") == []
