"""Running checks: what needs what, what a skip and a fault of the checker look like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from byoa.container.errors import ByoaError
from byoa.local.check.catalogue import all_checks
from byoa.local.check.checks import (
    GROUPS,
    Check,
    NotApplicable,
    Verdict,
    check,
    failed,
    passed,
)
from byoa.local.check.runs import run_checks, select
from byoa.local.check.trial import Samples, Trial, Waits


def _check(id: str, run: Callable[[Any], Verdict], *needs: str, group: str = "training") -> Check:
    return Check(id, "TRAIN-01", group, f"{id} holds", f"mend {id}", needs, run)


def _outcomes(*checks: Check, only: tuple[str, ...] = ()) -> dict[str, tuple[str, str]]:
    trial = Trial("mine", Samples(), Waits())
    try:
        results = run_checks(trial, checks, only=only)
    finally:
        trial.close()
    return {each.check.id: (each.verdict.outcome, each.verdict.cause) for each in results}


def test_a_check_is_skipped_when_one_that_it_needs_has_failed() -> None:
    found = _outcomes(
        _check("starts", lambda trial: failed("it does not start")),
        _check("ends", lambda trial: passed(), "starts"),
        _check("ends-well", lambda trial: passed(), "ends"),
    )
    assert found == {
        "starts": ("fail", "it does not start"),
        "ends": ("skip", "it needs starts, which did not pass"),
        "ends-well": ("skip", "it needs ends, which did not pass"),
    }


def test_a_check_that_only_names_brings_what_it_needs_and_nothing_else() -> None:
    found = _outcomes(
        _check("starts", lambda trial: passed()),
        _check("other", lambda trial: failed("nobody asked")),
        _check("ends", lambda trial: passed(), "starts"),
        only=("ends",),
    )
    assert set(found) == {"starts", "ends"}


def test_what_a_process_cannot_do_is_a_skip_with_the_reason() -> None:
    def run(trial: Trial) -> Verdict:
        raise NotApplicable("a process has no ENTRYPOINT")

    assert _outcomes(_check("a", run)) == {"a": ("skip", "a process has no ENTRYPOINT")}


def test_without_an_image_what_an_image_must_be_keeps_nothing_from_being_checked() -> None:
    def no_image(trial: Trial) -> Verdict:
        raise NotApplicable("a process has no image")

    found = _outcomes(
        _check("entry", no_image, group="image"),
        _check("starts", lambda trial: passed(), "entry"),
    )
    assert found["starts"] == ("pass", "")


def test_a_check_that_breaks_is_a_failure_that_says_so_and_the_others_go_on() -> None:
    def breaks(trial: Trial) -> Verdict:
        raise ZeroDivisionError("no such luck")

    found = _outcomes(_check("a", breaks), _check("b", lambda trial: passed()))
    assert found["a"] == ("fail", "this check could not be made: ZeroDivisionError: no such luck")
    assert found["b"] == ("pass", "")


def test_a_cure_of_its_own_goes_before_that_of_the_check() -> None:
    trial = Trial("mine", Samples(), Waits())
    try:
        results = run_checks(trial, [
            _check("a", lambda trial: failed("x", cure="do this")),
            _check("b", lambda trial: failed("y")),
            _check("c", lambda trial: passed()),
        ])
    finally:
        trial.close()
    assert [each.cure for each in results] == ["do this", "mend b", ""]


def test_an_unknown_name_is_refused_before_anything_runs() -> None:
    with pytest.raises(ByoaError) as error:
        select([_check("a", lambda trial: passed())], ["b"])
    assert error.value.code == "CHECK_UNKNOWN"


def test_what_was_made_once_is_not_made_again_and_neither_is_an_error() -> None:
    calls: list[str] = []
    trial = Trial("mine", Samples(), Waits())

    def breaks() -> None:
        calls.append("broken")
        raise ValueError("once")

    try:
        assert trial.memo("good", lambda: calls.append("good") or 7) == 7
        assert trial.memo("good", lambda: 8) == 7
        for _ in range(2):
            with pytest.raises(ValueError, match="once"):
                trial.memo("broken", breaks)
    finally:
        trial.close()
    assert calls == ["good", "broken"]


def test_two_checks_of_one_name_and_an_unknown_group_are_refused() -> None:
    def run(trial: Trial) -> Verdict:
        return passed()

    known = all_checks()[0].id
    with pytest.raises(ValueError, match="two checks"):
        check(known, clause="", group="image", title="", cure="")(run)
    with pytest.raises(ValueError, match="no group"):
        check("new-one", clause="", group="nonsense", title="", cure="")
    with pytest.raises(ValueError, match="no level"):
        check("new-one", clause="", group="image", title="", cure="", level="nonsense")


def test_the_check_behind_a_skip_is_the_first_that_did_not_pass() -> None:
    trial = Trial("mine", Samples(), Waits())
    try:
        results = run_checks(trial, [
            _check("starts", lambda trial: failed("no")),
            _check("ends", lambda trial: passed(), "starts"),
            _check("model", lambda trial: passed(), "ends"),
        ])
    finally:
        trial.close()
    assert [each.root for each in results] == ["", "starts", "starts"]


def test_the_catalogue_is_whole_and_its_needs_come_first() -> None:
    """At least forty checks, which cover the contract's checklist of a container."""
    checks = all_checks()
    ids = [each.id for each in checks]
    assert len(ids) == len(set(ids)) >= 45
    for number, each in enumerate(checks):
        assert each.group in GROUPS
        assert each.clause and each.title and each.cure, each.id
        assert not each.title.endswith("."), each.id
        assert set(each.needs) <= set(ids[:number]), each.id
    clauses = {name.strip() for each in checks for name in each.clause.split(",")}
    assert {f"CHK-{number:02}" for number in range(1, 19)} <= clauses
