"""The checks of hosting against images with one planted fault each, and against good ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from byoa.local.check.checks import Check
from byoa.local.check.runs import Result
from byoa.local.check.trial import Samples, Waits
from byoa.local.runners.engine import connect

QUICK = Waits(training_seconds=60, training_stop_seconds=15, hosting_stop_seconds=15,
              startup_seconds=30, invocation_seconds=30)

# Planted fault → what the cause must name.
FAULTS = {
    "serve-starts": ["exit code 1", "weights.json"],
    "serve-listens-on-8080": ["listens on 0.0.0.0:5000, not on port 8080"],
    "serve-listens-on-all-interfaces": ["listens on 127.0.0.1:8080, must be 0.0.0.0"],
    "ping-answers-200": ["/ping answers 404", "no such route"],
    "ping-answers-in-two-seconds": ["not answered within 2 s"],
    "ping-waits-for-the-model": ["503", "the model is loading"],
    "execution-parameters-are-valid": ["'MultiRecord'", "is 192, may be at most 100"],
    "serve-logs-to-stdout": ["stdout"],
    "sample-request-is-answered": ["500", "not aligned"],
    "answer-has-a-content-type": ["no Content-Type"],
    "answer-honours-accept": ["text/csv", "application/json"],
    "answer-fits-the-limit": ["7,000,0"],
    "unknown-content-type-is-refused": ["application/x-byoa-unknown is answered with 200"],
    "unacceptable-accept-is-refused": ["200 and application/json"],
    "malformed-body-is-refused": ["500"],
    "empty-body-is-refused": ["500"],
    "refusals-say-why": ["415 for an unknown Content-Type"],
    "bad-requests-do-not-end-it": ["a malformed body", "exit code 3"],
    "header-names-in-any-case": ["content-type", "415"],
    "unknown-headers-are-ignored": ["400", "X-Amzn"],
    "chunked-body-is-read": ["chunked body is answered with 400"],
    "expect-continue-is-answered": ["417"],
    "six-megabyte-body-is-read": ["413"],
    "answers-are-whole": ["not HTTP"],
    "connections-end-as-announced": ["the server ends it"],
    "stream-begins-before-it-ends": ["first byte came after"],
    "sessions-open-and-close": ["New-Session-Id: ", "must be <id>; Expires="],
    "idle-connections-do-not-block": ["while 1 connections were open and idle"],
    "ping-beside-a-running-request": ["not answered"],
    "hundred-requests-at-once": ["× 500"],
    "ping-under-load": ["not answered within 2 s"],
    "serves-a-read-only-model": ["read-only", "exit code 1"],
    "model-is-left-alone": ["model.cache"],
    "serves-without-a-network": ["without a way to the internet", "exit code 1"],
    "serves-without-root": ["1000", "exit code 1"],
    "serves-on-the-given-port": ["SAGEMAKER_BIND_TO_PORT=9000", "0.0.0.0:8080"],
    "several-models-are-served": ["SAGEMAKER_MULTI_MODEL"],
    "dead-worker-is-noticed": ["serve.py was killed", "/ping"],
    "sigterm-ends-it": ["still runs", "serve.py", "does not handle it"],
    "sigterm-finishes-requests": ["had begun before SIGTERM", "not answered"],
}
BROKEN = Path(__file__).parent / "broken"
WAITS = {"sigterm-ends-it": replace(QUICK, hosting_stop_seconds=4)}
# Its server ends while others would ask it: whose request is cut off is the engine's chance.
ALONE = {"bad-requests-do-not-end-it"}
APART = {"serves-without-a-network"}  # needs something to reach
# What the good image does not do, so that the check does not apply to it.
NOT_IN_GOOD = {
    "stream-begins-before-it-ends", "several-models-are-served", "dead-worker-is-noticed",
}


@pytest.mark.parametrize("id", [id for id in FAULTS if id not in APART])
def test_a_fault_of_hosting_is_the_one_failure_and_its_cause_is_named(
    id: str, check_broken: Callable[..., Result]
):
    only = ("image", id) if id in ALONE else ()
    result = check_broken(id, only=only, waits=WAITS.get(id, QUICK))
    for words in FAULTS[id]:
        assert words in result.verdict.cause, result.verdict
    assert result.cure


# Another fault of the same check: the file that is it, and what the cause must name.
MORE_FAULTS = [
    ("chunked-body-is-read", "unnoticed.py", "200 (no body)"),
    ("header-names-in-any-case", "unnoticed.py", '200 \'{"predictions"'),
    ("six-megabyte-body-is-read", "bad_request.py", "400 'field larger"),
    ("serve-listens-on-8080", "local.py", "127.0.0.1:5000, must be 0.0.0.0:8080"),
]


@pytest.mark.parametrize(
    ("id", "fault", "words"), MORE_FAULTS, ids=[f"{id}-{each}" for id, each, _ in MORE_FAULTS]
)
def test_a_fault_that_a_status_does_not_show_is_the_one_failure(
    id: str, fault: str, words: str, build_image: Callable[..., str], good_image: str,
    check_image: Callable[..., list[Result]],
):
    image = build_image(BROKEN / id, GOOD=good_image, FAULT=fault)
    results = check_image(image, only=("image", "hosting"))
    failures = {each.check.id: each for each in results if each.verdict.outcome == "fail"}
    assert set(failures) == {id}, failures
    assert words in failures[id].verdict.cause
    assert id != "serve-listens-on-8080" or "0.0.0.0:8080" in failures[id].cure


@pytest.mark.parametrize(("fault", "words"), [
    ("expired.py", "has expired: "), ("lost.py", "424 'there is no session"),
    ("unclosed.py", "Closed-Session-Id: all"),
])
def test_each_step_of_a_session_is_looked_at(
    fault: str, words: str, build_image: Callable[..., str], good_image: str,
    check_image: Callable[..., list[Result]],
):
    id = "sessions-open-and-close"
    image = build_image(BROKEN / id, GOOD=good_image, FAULT=fault)
    verdict = check_image(image, only=(id,))[-1].verdict
    assert (verdict.outcome, words in verdict.cause) == ("fail", True), verdict


def test_a_server_that_waits_for_a_model_is_not_waited_for(
    build_image: Callable[..., str], good_image: str, tmp_path: Path,
    check_image: Callable[..., list[Result]],
):
    # The platform gives a model eight minutes to load; where there is none they would be wasted.
    tmp_path.joinpath("Dockerfile").write_text("ARG GOOD\nFROM ${GOOD}\nCOPY fault.py .\n")
    tmp_path.joinpath("fault.py").write_text("import serve\nserve.load = lambda folder: None\n")
    image = build_image(tmp_path, GOOD=good_image)
    waits = replace(QUICK, startup_seconds=Waits().startup_seconds)
    results = check_image(image, samples=Samples(), only=("ping-answers-200",), waits=waits)
    verdict = results[-1].verdict
    assert verdict.outcome == "skip", verdict
    assert "within 20 s, and there is no model to serve: give --model" in verdict.cause


@pytest.fixture
def elsewhere(good_image: str) -> Iterator[str]:
    """Another container, which stands for the internet: host:port."""
    engine = connect()
    container = engine.containers.run(
        good_image, ["-m", "http.server", "7000"], entrypoint="python3", detach=True,
        labels={"byoa.test": "check"},
    )
    try:
        container.reload()
        yield f"{container.attrs['NetworkSettings']['IPAddress']}:7000"
    finally:
        container.remove(force=True, v=True)
        engine.close()


def test_a_server_that_needs_the_internet_is_found_out(
    elsewhere: str, check_broken: Callable[..., Result], check_samples: Samples
):
    # TRAP-51, TRAP-52: fetched at the start, with network isolation.
    samples = replace(check_samples, environment={"ELSEWHERE": elsewhere})
    result = check_broken("serves-without-a-network", samples=samples)
    for words in FAULTS["serves-without-a-network"]:
        assert words in result.verdict.cause, result.verdict


def test_every_check_of_hosting_has_a_broken_image(hosting: list[Check]):
    assert {each.id for each in hosting} == set(FAULTS)


def test_the_good_image_passes_every_check_of_hosting(
    good_image: str, check_image: Callable[..., list[Result]]
):
    results = check_image(good_image, only=("hosting",))
    outcomes = {each.check.id: each.verdict for each in results}
    assert {id: each for id, each in outcomes.items() if each.outcome == "fail"} == {}
    assert {id for id, each in outcomes.items() if each.outcome == "skip"} == NOT_IN_GOOD


@pytest.fixture(scope="session")
def hosting() -> list[Check]:
    from byoa.local.check.catalogue import all_checks

    return [each for each in all_checks() if each.group == "hosting"]


def test_without_samples_it_is_told_what_can_be_told(
    good_image: str, check_image: Callable[..., list[Result]], tmp_path: Path
):
    model = tmp_path / "model"
    model.mkdir()
    model.joinpath("model.json").write_text("{}")
    results = check_image(good_image, samples=Samples(model=model), only=("hosting",))
    outcomes = {each.check.id: each.verdict for each in results}
    assert {id: each for id, each in outcomes.items() if each.outcome == "fail"} == {}
    assert outcomes["sample-request-is-answered"].outcome == "skip"
    for id in ("sigterm-finishes-requests", "hundred-requests-at-once", "chunked-body-is-read"):
        assert outcomes[id].outcome == "pass", outcomes[id]


def test_a_server_without_a_model_is_not_called_broken(
    good_image: str, check_image: Callable[..., list[Result]]
):
    results = check_image(good_image, samples=Samples(), only=("hosting",))
    results = [each for each in results if each.check.group == "hosting"]
    assert {each.verdict.outcome for each in results} == {"skip"}
    assert "no model to serve" in results[0].verdict.cause


def test_an_image_without_a_program_for_serve_is_told_apart(
    build_image: Callable[..., str], good_image: str, tmp_path: Path,
    check_image: Callable[..., list[Result]], check_samples: Samples,
):
    # TRAP-01: no ENTRYPOINT, `train` is on PATH and `serve` is not.
    folder = tmp_path / "train-only"
    folder.mkdir()
    folder.joinpath("Dockerfile").write_text(
        "ARG GOOD\nFROM ${GOOD}\nENTRYPOINT []\n"
        "RUN printf '#!/bin/sh\\nexec /opt/program/main.py train\\n' > /usr/local/bin/train"
        " && chmod 0755 /usr/local/bin/train\n"
    )
    image = build_image(folder, GOOD=good_image)
    result = check_image(image, only=("serve-starts",))[-1]
    assert "exit code 127" in result.verdict.cause, result.verdict
    assert "ENTRYPOINT" in result.cure


def test_sessions_of_an_inference_script_pass_where_they_are_on(
    torch_free_image: str, tmp_path: Path, check_image: Callable[..., list[Result]]
):
    # SESS-01, SESS-02, of byoa's own image; and where they are off there is nothing to check.
    code = tmp_path / "model" / "code"
    code.mkdir(parents=True)
    code.joinpath("inference.py").write_text(
        "def model_fn(model_dir):\n    return None\n\n\n"
        "def predict_fn(data, model, context):\n    return context.session is None\n"
    )
    samples = Samples(model=tmp_path / "model", request=b"1,2\n", content_type="text/csv")
    on = replace(samples, environment={"SAGEMAKER_ENABLE_STATEFUL_SESSIONS": "true"})
    for given, outcome in ((on, "pass"), (samples, "skip")):
        result = check_image(torch_free_image, samples=given, only=("sessions-open-and-close",))[-1]
        assert result.verdict.outcome == outcome, result.verdict


def test_an_image_that_serves_several_models_passes(
    build_image: Callable[..., str], good_image: str, check_image: Callable[..., list[Result]]
):
    # CHK-11, FIX-15: load, load again, list, show, invoke, unload, unload again.
    image = build_image(Path(__file__).parent / "several_models", GOOD=good_image)
    result = check_image(image, only=("several-models-are-served",))[-1]
    assert result.verdict.outcome == "pass", result.verdict
    assert "8 requests" in result.verdict.evidence
