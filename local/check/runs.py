"""Running checks in the order of the catalogue, each with its verdict and its time."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from byoa.container.errors import ByoaError
from byoa.local.check.checks import FAIL, PASS, Check, NotApplicable, Verdict, failed, skipped
from byoa.local.check.trial import Trial

_BROKEN_CURE = "run `byoa check` again; if it stays so, this is a fault of the checker: report it"


@dataclass(frozen=True)
class Result:
    check: Check
    verdict: Verdict
    seconds: float
    root: str = ""  # the check behind a skip: the first that did not pass of those that it needs

    @property
    def cure(self) -> str:
        """What to do, where the check failed."""
        return (self.verdict.cure or self.check.cure) if self.verdict.outcome == FAIL else ""


def run_checks(
    trial: Trial,
    checks: Sequence[Check],
    *,
    only: Sequence[str] = (),
    on_start: Callable[[Check], None] = lambda check: None,
    on_result: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    """The result of every check, or of those whose id or group is in `only` and what they need."""
    wanted = select(checks, only)
    results: dict[str, Result] = {}
    for each in wanted:
        on_start(each)
        started = time.monotonic()
        missing = [need for need in each.needs if not _satisfied(results[need], trial)]
        root = ""
        if missing:
            root = results[missing[0]].root or missing[0]
            verdict = skipped(f"it needs {missing[0]}, which did not pass")
        else:
            verdict = _verdict(each, trial)
        results[each.id] = result = Result(
            each, verdict, time.monotonic() - started, root
        )
        on_result(result)
    return list(results.values())


def _satisfied(result: Result, trial: Trial) -> bool:
    """A process has no image: what an image must be for it to run holds by itself."""
    no_image = trial.facts is None and result.check.group == "image"
    return no_image or result.verdict.outcome == PASS


def select(checks: Sequence[Check], only: Sequence[str]) -> list[Check]:
    """The checks that `only` names by id or group, with those that they need; all for ()."""
    if not only:
        return list(checks)
    known = {each.id: each for each in checks}
    for name in only:
        if name not in known and name not in {each.group for each in checks}:
            raise ByoaError(
                "CHECK_UNKNOWN", f"no check and no group is called {name!r}",
                expected="an id or a group; `byoa check --list` prints them",
            )
    wanted = [each for each in checks if each.id in only or each.group in only]
    for each in wanted:  # grows while it is walked
        wanted += [known[need] for need in each.needs if known[need] not in wanted]
    return [each for each in checks if each in wanted]


def _verdict(check: Check, trial: Trial) -> Verdict:
    try:
        return check.run(trial)
    except NotApplicable as reason:
        return skipped(str(reason))
    except Exception as error:
        # What could not be checked does not hold, and must not take the other checks with it.
        return failed(
            f"this check could not be made: {type(error).__name__}: {error}",
            cure=_BROKEN_CURE, evidence="".join(traceback.format_exception(error)[-3:]),
        )
