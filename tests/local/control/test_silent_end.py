"""A container that fails and does not say why: the service's words, and the cause in the log."""

from __future__ import annotations

from typing import Any

import pytest

from byoa.container.supervisor import Exit
from byoa.local.control.silent_end import note

SAID = " and left nothing in /opt/ml/output/failure, from which FailureReason takes the cause; "


@pytest.mark.both_runners
@pytest.mark.parametrize(("source", "code", "last"), [
    ("print('first', file=sys.stderr); sys.exit('no data: é')", 1,
     "the last that it printed: no data: é"),
    ("1 / 0", 1, "the last that it printed: ZeroDivisionError: division by zero"),
    ("(ml / 'output/failure').touch(); sys.exit(3)", 3, "it printed nothing"),
], ids=["exits", "raises", "empty file"])
def test_the_cause_is_the_last_line_of_the_job_s_log(
    laboratory: Any, job: Any, source: str, code: int, last: str
) -> None:
    """TRAIN-142, TRAP-23: FailureReason is the service's own. All goes to stderr: Docker does not
    keep the order of two streams."""
    described = job("silent", source)

    assert described["FailureReason"] == f"AlgorithmError: , exit code: {code}"
    assert laboratory.lines("silent")[-1] == (
        f"byoa: algo-1 ended with exit code {code}{SAID}{last}"
    )


def test_a_failure_that_is_told_is_not_told_twice(laboratory: Any, job: Any) -> None:
    """TRAIN-141."""
    job("told", "(ml / 'output/failure').write_text('no data'); print('end'); sys.exit(1)")

    assert laboratory.lines("told") == ["end"]


def test_a_job_that_is_stopped_has_not_failed(
    laboratory: Any, training_request: Any
) -> None:
    """TRAIN-151."""
    laboratory.call("CreateTrainingJob", **training_request(
        "stopped", AlgorithmSpecification=laboratory.program("""
            print('ready', flush=True)
            time.sleep(100)
        """),
    ))
    laboratory.until_printed("stopped", "ready")
    laboratory.call("StopTrainingJob", TrainingJobName="stopped")

    assert laboratory.wait("stopped")["TrainingJobStatus"] == "Stopped"
    assert laboratory.lines("stopped") == ["ready"]


@pytest.mark.parametrize(("code", "how"), [
    (2, "2"), (126, "126 (its program cannot be executed)"),
    (127, "127 (its program, or one that it runs, is not there)"), (137, "137 (SIGKILL)"),
    (139, "139 (SIGSEGV)"), (143, "143 (SIGTERM)"), (255, "255"),
])
def test_an_exit_code_that_means_something_is_explained(code: int, how: str) -> None:
    """TRAIN-144."""
    said = note("algo-2", Exit(code), "x" * 1000)

    assert said == f"algo-2 ended with exit code {how}{SAID}the last that it printed: {'x' * 300}"
