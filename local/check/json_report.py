"""The report for a program, in a form that only grows: members are added, never changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from byoa.local.check.checks import ERROR, FAIL, PASS, SKIP, WARNING, Check
from byoa.local.check.report import Report
from byoa.local.check.runs import Result

SCHEMA = 1  # rises when a member is removed or changes its meaning


def render(report: Report) -> str:
    return json.dumps(document(report), indent=2, ensure_ascii=False) + "\n"


def document(report: Report) -> dict[str, Any]:
    return {
        "byoa_check": SCHEMA,
        "subject": {"kind": report.kind, "name": report.subject, "about": report.about},
        "started": report.started.isoformat(timespec="seconds"),
        "seconds": round(report.seconds, 3),
        "summary": {
            **{name: report.count(name) for name in (PASS, FAIL, SKIP)},
            **{level: report.failed(level) for level in (ERROR, WARNING)},  # "fail", apart
        },
        "checks": [_check(each) for each in report.results],
    }


def _check(result: Result) -> dict[str, Any]:
    verdict = result.verdict
    return {
        **describe(result.check),
        "outcome": verdict.outcome,
        "seconds": round(result.seconds, 3),
        "cause": verdict.cause,
        "cure": result.cure,
        "evidence": verdict.evidence,
    }


def describe(check: Check) -> dict[str, Any]:
    return {
        "id": check.id,
        "group": check.group,
        "level": check.level,
        "title": check.title,
        "clauses": [each.strip() for each in check.clause.split(",")],
    }


def render_catalogue(checks: Sequence[Check]) -> str:
    entries = [{**describe(each), "cure": each.cure, "needs": list(each.needs)} for each in checks]
    return json.dumps({"byoa_check": SCHEMA, "catalogue": entries}, indent=2,
                      ensure_ascii=False) + "\n"
