"""The report as SARIF 2.1.0, which code hosts show beside a change: a rule and a result a check."""

from __future__ import annotations

import json
from datetime import timedelta, timezone
from typing import Any

from byoa.local.check.checks import FAIL, PASS, SKIP, Check
from byoa.local.check.report import Report, tool_version
from byoa.local.check.runs import Result

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
KINDS = {PASS: "pass", FAIL: "fail", SKIP: "notApplicable"}


def render(report: Report) -> str:
    return json.dumps(document(report), indent=2, ensure_ascii=False) + "\n"


def document(report: Report) -> dict[str, Any]:
    started = report.started.astimezone(timezone.utc)
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "byoa check",
                        "version": tool_version(),
                        "rules": [_rule(each.check) for each in report.results],
                    }
                },
                "automationDetails": {"id": f"byoa-check/{report.subject}"},
                "invocations": [
                    {
                        "executionSuccessful": True,
                        "startTimeUtc": _time(started),
                        "endTimeUtc": _time(started + timedelta(seconds=report.seconds)),
                    }
                ],
                "results": [
                    _result(report, number, each) for number, each in enumerate(report.results)
                ],
            }
        ],
    }


def _time(moment: Any) -> str:
    return str(moment.strftime("%Y-%m-%dT%H:%M:%SZ"))


def _rule(check: Check) -> dict[str, Any]:
    return {
        "id": check.id,
        "shortDescription": {"text": check.title},
        "fullDescription": {"text": f"{check.title}. SageMaker's contract: {check.clause}."},
        "help": {"text": f"Where it does not hold: {check.cure}."},
        "defaultConfiguration": {"level": check.level},
        "properties": {"tags": [check.group, *(e.strip() for e in check.clause.split(","))]},
    }


def _result(report: Report, number: int, result: Result) -> dict[str, Any]:
    verdict, failed = result.verdict, result.verdict.outcome == FAIL
    parts = [verdict.cause or result.check.title]
    if failed:
        parts.append(f"To do: {result.cure}.")
    found: dict[str, Any] = {
        "ruleId": result.check.id,
        "ruleIndex": number,
        "kind": KINDS[verdict.outcome],
        # The standard wants "none" for all that pass.
        "level": result.check.level if failed else "none",
        "message": {"text": "\n".join(parts)},
        "locations": [
            {
                "logicalLocations": [
                    {"name": report.subject, "fullyQualifiedName": report.subject, "kind": "module"}
                ]
            }
        ],
        # One result is the same from run to run while image name and check stay.
        "partialFingerprints": {"check/v1": f"{report.subject}:{result.check.id}"},
    }
    if verdict.evidence:
        found["properties"] = {"evidence": verdict.evidence}
    return found
