"""The checker's static checks against images with one planted fault each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from byoa.local.check.catalogue import all_checks
from byoa.local.check.checks import FAIL, PASS
from byoa.local.check.image_checks import SERVERLESS_BYTES
from byoa.local.check.runs import Result, run_checks
from byoa.local.check.trial import Samples, Trial

BROKEN = Path(__file__).parent / "broken"

# id, the Dockerfile of its folder, words that its cause must have
FAULTS = [
    ("image-linux-amd64", "Dockerfile", "linux/arm64"),
    ("entrypoint-exec-form", "Dockerfile", "/bin/sh: /opt/program/main.py"),
    ("entrypoint-exec-form", "bash.Dockerfile", "/bin/bash: /opt/program/main.py train"),
    ("entrypoint-not-an-init", "Dockerfile", "tini"),
    ("nothing-below-opt-ml", "Dockerfile", "/opt/ml/code/constants.py"),
    ("nothing-below-opt-ml", "module.Dockerfile", "constants.py; WORKDIR is /opt/ml/code"),
    ("workdir-outside-opt-ml", "Dockerfile", "/opt/ml/code"),
    ("runs-as-root", "Dockerfile", "1000:1000"),
    ("labels-well-formed", "Dockerfile", "did you mean com.amazonaws.sagemaker.capabilities.multi"),
    ("labels-well-formed", "value.Dockerfile", "'yes'"),
    ("bind-to-port-labelled", "Dockerfile", "/opt/program/serve.py:"),
    ("multi-model-labelled", "Dockerfile", "/opt/program/many.py:1"),
    ("bidirectional-labelled", "Dockerfile", "/opt/program/talk.py:1"),
    ("exposes-8080", "Dockerfile", "5000/tcp"),
    ("no-secrets", "Dockerfile", "ENV holds a secret: AKIA…"),
    ("no-secrets", "history.Dockerfile", "the history holds a secret"),
    ("no-secrets", "file.Dockerfile", "/root/.aws/credentials"),
    ("train-or-serve-found", "Dockerfile", "neither `train` nor `serve` is on PATH"),
    ("train-or-serve-found", "script.Dockerfile", "/opt/program/program/main.py"),
    ("train-or-serve-found", "misspelt.Dockerfile", "no pyhton3 on PATH"),
    ("train-or-serve-found", "hidden.Dockerfile", "/opt/ml/code/train is what the image starts"),
    ("programs-executable", "Dockerfile", "/opt/program/main.py has mode 0644"),
    ("programs-executable", "on-path.Dockerfile", "/opt/program/serve has mode 0644"),
    ("programs-have-unix-lines", "Dockerfile", "'/usr/bin/env python3\\r'"),
    ("programs-have-unix-lines", "shell.Dockerfile", "/opt/program/start.sh:2 ends in CRLF"),
    ("interpreters-exist", "Dockerfile", "the image has no python9"),
    ("interpreters-exist", "none.Dockerfile", "exec format error"),
    ("interpreters-exist", "loader.Dockerfile", "needs the loader /lib64/ld-musl"),
    ("readable-by-everyone", "Dockerfile", "/opt/program/serve.py has mode 0600"),
    ("readable-by-everyone", "folder.Dockerfile", "/opt/program has mode 0700"),
    ("python-unbuffered", "Dockerfile", "PYTHONUNBUFFERED is not set"),
    ("no-gpu-driver", "Dockerfile", "libcuda.so.535.104.05"),
    ("gpu-variables-set", "Dockerfile", "NVIDIA_VISIBLE_DEVICES is not set"),
    ("gpu-variables-set", "capabilities.Dockerfile", "graphics"),
]
# Their faults cannot be in a small Dockerfile: one needs a registry, the other 10 GB.
ELSEWHERE = {"image-single-platform", "fits-serverless"}


@pytest.mark.parametrize(
    ("id", "dockerfile", "words"), FAULTS,
    ids=[f"{id}-{dockerfile.rpartition('.')[0]}".rstrip("-") for id, dockerfile, _ in FAULTS],
)
def test_the_planted_fault_is_named_and_no_other(
    id: str, dockerfile: str, words: str, build_image: Callable[..., str], good_image: str,
    check_image: Callable[..., list[Result]],
) -> None:
    """CHK-15 and the traps that a look at an image shows: one check fails, and says why."""
    image = build_image(BROKEN / id, dockerfile, GOOD=good_image)
    results = check_image(image, only=("image",))
    failures = {each.check.id: each.verdict for each in results if each.verdict.outcome == FAIL}
    assert set(failures) == {id}, failures
    assert words in failures[id].cause
    assert next(each for each in results if each.check.id == id).cure


def test_a_program_below_opt_ml_is_one_failure_and_nothing_is_run(
    build_image: Callable[..., str], good_image: str, check_image: Callable[..., list[Result]]
) -> None:
    """TRAIN-07, TRAP-11: what hides it is the cause, wherever else it shows."""
    image = build_image(BROKEN / "train-or-serve-found", "hidden.Dockerfile", GOOD=good_image)
    results = check_image(image, only=("image", "training", "hosting"))
    outcomes = {each.check.id: each.verdict for each in results}
    assert [id for id, each in outcomes.items() if each.outcome == FAIL] == ["train-or-serve-found"]
    for id in ("train-starts", "serve-starts"):
        assert "train-or-serve-found" in outcomes[id].cause


def test_every_check_of_an_image_has_a_broken_image() -> None:
    ours = {each.id for each in all_checks() if each.group == "image"}
    assert {id for id, _, _ in FAULTS} | ELSEWHERE == ours


def test_the_good_image_passes_every_check_that_applies(
    good_image: str, check_image: Callable[..., list[Result]]
) -> None:
    outcomes = {each.check.id: each.verdict for each in check_image(good_image, only=("image",))}
    not_passed = {id for id, verdict in outcomes.items() if verdict.outcome != PASS}
    assert not_passed == {
        "image-single-platform", "multi-model-labelled", "bidirectional-labelled",
        "gpu-variables-set",
    }


def test_an_image_over_ten_gigabytes_is_too_large_for_serverless(good_image: str) -> None:
    """SLS-02. The largest instructions of the history say where it comes from."""
    with Trial.of_image(good_image, Samples()) as trial:
        assert trial.facts is not None
        trial.facts = replace(trial.facts, size=SERVERLESS_BYTES + 1)
        (result,) = run_checks(trial, all_checks(), only=["fits-serverless"])
    assert result.verdict.outcome == FAIL
    assert "10.00 GB" in result.verdict.cause
    assert "GB  " in result.verdict.evidence
