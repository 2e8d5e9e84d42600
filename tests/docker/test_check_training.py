"""The checker's training and processing checks against images with one planted fault each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from byoa.local.check.catalogue import all_checks
from byoa.local.check.checks import FAIL, PASS, SKIP
from byoa.local.check.runs import Result, run_checks
from byoa.local.check.trial import Samples, Trial, Waits

BROKEN = Path(__file__).parent / "broken"
GROUPS = ("training", "processing")
QUICK = Waits(training_seconds=30, training_stop_seconds=3, peer_seconds=2)
IMPATIENT = replace(QUICK, training_seconds=4)
PROCESS = ("/opt/program/main.py", "process")

# id, the file of its folder that is the fault, words that its cause must have
FAULTS = [
    ("train-starts", "fault.py", "pyhton"),
    ("train-without-gpu", "fault.py", "status 100"),
    ("train-exits-zero", "fault.py", "shapes (3,4) and (5,) do not fit"),
    ("train-exits-zero", "bus_error.py", "/dev/shm"),
    ("train-exits-zero", "endless.py", "still ran after 4 s"),
    ("no-failure-file-on-success", "fault.py", "/opt/ml/output/failure"),
    ("missing-data-fails", "fault.py", "holds no files"),
    ("failure-exit-code", "fault.py", "signal 9"),
    ("failure-file", "fault.py", "no /opt/ml/output/failure"),
    ("failure-file", "other_name.py", "/opt/ml/output/failure.txt"),
    ("failure-file-text", "fault.py", "shows the first 1,024"),
    ("failure-file-text", "generic.py", "does not name the cause"),
    ("failure-file-text", "latin1.py", "0xd6"),
    ("model-left", "fault.py", "/opt/program/model.json"),
    ("results-collected", "fault.py", "/opt/program/metrics.json"),
    ("results-collected", "output_root.py", "/opt/ml/output/predictions.csv"),
    ("model-plain-files", "fault.py", "link to /tmp/best.json, outside"),
    ("model-at-root", "fault.py", "/opt/ml/model/model/"),
    ("model-at-root", "archive.py", "model.tar.gz"),
    ("model-readable", "fault.py", "mode 0600"),
    ("model-clean", "fault.py", "._model.json"),
    ("checkpoints-synced", "fault.py", "/tmp/checkpoints/checkpoint-0.json"),
    ("checkpoints-resumed", "fault.py", "JSONDecodeError"),
    ("train-again", "fault.py", "FileExistsError"),
    ("older-config", "fault.py", "instance_groups"),
    ("unknown-config", "fault.py", "byoa_check_unknown"),
    ("hyperparameters-quoted", "fault.py", "invalid literal for int()"),
    ("hyperparameters-of-tuning", "fault.py", "_tuning_objective_metric"),
    ("hyperparameters-empty", "fault.py", "names no hyperparameter"),
    ("manifest-files", "fault.py", "train-manifest"),
    ("read-only-data", "fault.py", "Read-only file system"),
    ("network-isolation", "fault.py", "Network is unreachable"),
    ("network-isolation", "waiting.py", "hangs"),
    ("pipe-epochs", "fault.py", "train: 1 epochs"),
    ("log-unbuffered", "fault.py", "held back"),
    ("log-lines", "fault.py", "carriage returns"),
    ("log-lines", "coloured.py", "ANSI"),
    ("metrics-found", "fault.py", "nearest line: 'epoch=0 loss is 1.000000'"),
    ("log-utf8", "fault.py", "not UTF-8"),
    ("stop-in-time", "fault.py", "no handler for SIGTERM"),
    ("stop-in-time", "ignored.py", "ignores SIGTERM"),
    ("stop-in-time", "goes_on.py", "catches SIGTERM and goes on"),
    ("stop-in-time", "shell.py", "the first process is the shell"),
    ("stop-saves-model", "fault.py", "/opt/ml/model is empty"),
    ("hosts-late-names", "fault.py", "algo-1 did not succeed"),
    ("hosts-own-files", "fault.py", "/opt/ml/model/model.json"),
    ("hosts-rank-by-position", "fault.py", "no host takes itself for the first"),
    ("process-exits-zero", "fault.py", "training jobs have alone"),
    ("process-outputs-left", "fault.py", "/opt/ml/model/report.json"),
    ("process-outputs-real", "fault.py", "link to /tmp/report.json"),
    ("process-fails", "fault.py", "exit code 0"),
    ("process-message", "fault.py", "0xfc"),
    ("process-message", "long.py", "bytes: ExitMessage shows the first 1,024"),
]
HANGING = ("endless.py", "waiting.py")


def _samples(samples: Samples, id: str) -> Samples:
    """The samples, with the options that the check needs to be made at all."""
    return replace(
        samples,
        hosts=2 if id.startswith("hosts-") else 1,
        pipe=("train",) if id.startswith("pipe-") else (),
        process_command=PROCESS if id.startswith("process-") else (),
        metrics={"loss": "loss=([0-9.]+)"} if id == "metrics-found" else {},
    )


@pytest.mark.parametrize(
    ("id", "fault", "words"), FAULTS, ids=[f"{id}-{Path(fault).stem}" for id, fault, _ in FAULTS]
)
def test_the_planted_fault_is_named_and_no_other(
    id: str, fault: str, words: str, build_image: Callable[..., str], good_image: str,
    check_image: Callable[..., list[Result]], check_samples: Samples,
) -> None:
    """CHK-01 … CHK-05, CHK-13, CHK-14, CHK-16 … CHK-18: exactly one check fails, and says why."""
    image = build_image(BROKEN / id, GOOD=good_image, FAULT=fault)
    impatient = fault in HANGING or id == "pipe-epochs"
    results = check_image(
        image, samples=_samples(check_samples, id), only=("image", *GROUPS),
        waits=IMPATIENT if impatient else QUICK,
    )
    failures = {each.check.id: each.verdict for each in results if each.verdict.outcome == FAIL}
    assert set(failures) == {id}, failures
    assert words in failures[id].cause
    found = next(each for each in results if each.check.id == id)
    assert found.cure


def test_every_training_and_processing_check_has_a_broken_image() -> None:
    ours = {each.id for each in all_checks() if each.group in GROUPS}
    assert {id for id, _, _ in FAULTS} == ours


def test_the_good_image_passes_every_check_of_training_and_processing(
    good_image: str, check_image: Callable[..., list[Result]], check_samples: Samples
) -> None:
    samples = replace(
        check_samples, hosts=2, pipe=("train",), process_command=PROCESS,
        metrics={"loss": "loss=([0-9.]+)"},
    )
    results = check_image(good_image, samples=samples, only=GROUPS, waits=QUICK)
    outcomes = {each.check.id: each.verdict for each in results}
    not_passed = {id: verdict for id, verdict in outcomes.items() if verdict.outcome != PASS}
    assert set(not_passed) == {"train-without-gpu"}, not_passed
    assert not_passed["train-without-gpu"].outcome == SKIP


def test_without_samples_what_can_be_told_is_told(
    good_image: str, check_image: Callable[..., list[Result]]
) -> None:
    """Channels, hosts, Pipe and processing need the user's word; their checks say which."""
    results = check_image(good_image, samples=Samples(), only=GROUPS, waits=QUICK)
    outcomes = {each.check.id: each.verdict for each in results}
    assert [id for id, verdict in outcomes.items() if verdict.outcome == FAIL] == []
    assert outcomes["model-left"].outcome == PASS
    for id, option in (
        ("missing-data-fails", "--channel"), ("hosts-late-names", "--hosts 2"),
        ("pipe-epochs", "--pipe"), ("process-exits-zero", "--process-command"),
        ("metrics-found", "--metric"),
    ):
        assert outcomes[id].outcome == SKIP
        assert option in outcomes[id].cause


def test_a_run_that_ends_too_soon_to_be_stopped_is_said_to_be(
    build_image: Callable[..., str], good_image: str, check_image: Callable[..., list[Result]],
    check_samples: Samples,
) -> None:
    """CHK-03: nobody can tell, so neither pass nor failure is made up."""
    image = build_image(BROKEN / "stop-in-time", GOOD=good_image, FAULT="too_soon.py")
    samples = replace(check_samples, hyperparameters={"epochs": "0"})
    results = check_image(image, samples=samples, only=("stop-in-time",), waits=QUICK)
    verdict = results[-1].verdict
    assert (verdict.outcome, "train longer" in verdict.cause) == (SKIP, True)


def test_an_algorithm_in_process_mode_passes_what_applies(tmp_path: Path) -> None:
    train = tmp_path / "train"
    train.mkdir()
    train.joinpath("part-0.csv").write_text("0,1,2\n1,8,9\n0,1,3\n1,9,9\n")
    samples = Samples(channels={"train": train})
    with Trial.of_algorithm("nearest-centroid", samples, QUICK) as trial:
        results = run_checks(trial, all_checks(), only=("training",))
    assert {r.check.id: r.verdict for r in results if r.verdict.outcome == FAIL} == {}
    passes = {each.check.id for each in results if each.verdict.outcome == PASS}
    assert {"train-exits-zero", "model-left", "failure-file-text", "manifest-files"} <= passes
