"""The report as JUnit XML, which every CI system shows: a suite a group, a case a check.

A warning is a case that passes, with what does not hold in its output: a red build is for errors.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from xml.etree import ElementTree

from byoa.local.check.checks import FAIL, SKIP, WARNING
from byoa.local.check.report import Report
from byoa.local.check.runs import Result

# XML 1.0 has no place for these, not even escaped; logs are full of them.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(report: Report) -> str:
    """The document, with an XML declaration."""
    root = ElementTree.Element("testsuites", {
        "name": f"byoa check {_clean(report.subject)}", **_counts(report.results),
        "time": f"{report.seconds:.3f}",
    })
    for group, results in report.by_group().items():
        suite = ElementTree.SubElement(root, "testsuite", {
            "name": group, **_counts(results), "time": _total(results),
            "timestamp": report.started.strftime("%Y-%m-%dT%H:%M:%S"),
            "hostname": socket.gethostname(),
        })
        ElementTree.SubElement(suite, "properties")
        for each in results:
            _case(suite, report.subject, each)
        ElementTree.SubElement(suite, "system-out")
        ElementTree.SubElement(suite, "system-err")
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' \
        + ElementTree.tostring(root, encoding="unicode") + "\n"


def _case(suite: ElementTree.Element, subject: str, result: Result) -> None:
    check, verdict = result.check, result.verdict
    case = ElementTree.SubElement(suite, "testcase", {
        "name": check.id, "classname": _clean(f"{subject}.{check.group}"),
        "time": f"{result.seconds:.3f}",
    })
    if verdict.outcome == SKIP:
        ElementTree.SubElement(case, "skipped", {"message": _clean(verdict.cause)})
    elif verdict.outcome == FAIL:
        parts = [f"{check.title}: does not hold ({check.clause})", f"why: {verdict.cause}",
                 f"cure: {result.cure}", verdict.evidence.rstrip()]
        text = _clean("\n".join(part for part in parts if part))
        if check.level == WARNING:
            ElementTree.SubElement(case, "system-out").text = f"warning: {text}"
            return
        failure = ElementTree.SubElement(case, "failure", {
            "message": _clean(verdict.cause), "type": check.id,
        })
        failure.text = text


def _counts(results: Sequence[Result]) -> dict[str, str]:
    outcomes = [each.verdict.outcome for each in results]
    failures = sum(each.verdict.outcome == FAIL and each.check.level != WARNING for each in results)
    return {"tests": str(len(outcomes)), "failures": str(failures), "errors": "0",
            "skipped": str(outcomes.count(SKIP))}


def _total(results: Sequence[Result]) -> str:
    return f"{sum(each.seconds for each in results):.3f}"


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
