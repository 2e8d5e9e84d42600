"""The four formats of a report, from the same results."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any
from xml.etree import ElementTree

import pytest

from byoa.local.check import json_report, junit, sarif, table
from byoa.local.check.checks import Check, Verdict, failed, passed, skipped
from byoa.local.check.report import Report
from byoa.local.check.runs import Result


def _result(
    id: str, group: str, verdict: Verdict, seconds: float = 0.25, level: str = "error",
    root: str = "",
) -> Result:
    check = Check(id, "TRAIN-05, CHK-15", group, f"{id} is right", f"mend {id}", (),
                  lambda trial: verdict, level)
    return Result(check, verdict, seconds, root)


@pytest.fixture
def report() -> Report:
    return Report(
        "mine:1 <& co>", "image", "linux/amd64, 0.24 GB",
        [
            _result("entry-form", "image", failed(
                "ENTRYPOINT is <sh -c> & 'x'", cure="write it as an array",
                evidence="\x1b[31mred\x00\nlast line",
            )),
            _result("platform", "image", passed("linux/amd64")),
            _result("train-ends", "training", skipped("it needs platform")),
        ],
        datetime(2025, 1, 2, 3, 4, 5, tzinfo=timezone.utc), 1.5,
    )


def test_the_table_has_cause_cure_and_evidence_below_a_failure(report: Report) -> None:
    text = table.render(report)
    lines = text.splitlines()
    assert lines[0] == "mine:1 <& co> (linux/amd64, 0.24 GB)"
    at = next(number for number, line in enumerate(lines) if line.startswith("  FAIL entry-form"))
    assert lines[at].endswith("entry-form is right  [TRAIN-05, CHK-15]")
    assert lines[at + 1] == "       why:  ENTRYPOINT is <sh -c> & 'x'"
    assert lines[at + 2] == "       cure: write it as an array"
    assert lines[at + 4] == "       | last line"
    assert "skipped: it needs platform" in text
    assert lines[-1] == "3 checks of mine:1 <& co> in 1.5 s: 1 hold, 1 error, 1 skipped"


def test_a_terminal_shows_no_control_characters_of_a_containers_log(report: Report) -> None:
    assert "\x1b" not in table.render(report)
    assert "\x00" not in table.render(report)
    assert "\x1b[1;31mFAIL\x1b[0m" in table.render(report, colour=True)


def test_a_group_that_is_skipped_for_one_reason_is_one_line() -> None:
    results = [_result(f"image-{number}", "image", skipped("a process has no image"))
               for number in range(3)]
    results.append(_result("train-ends", "training", passed()))
    text = table.render(Report("mine", "algorithm", "", results,
                               datetime.now(timezone.utc), 0.1))
    assert "  -    3 checks skipped: a process has no image" in text
    assert "image-1" not in text


def test_the_json_report_has_a_stable_form(report: Report) -> None:
    document = json.loads(json_report.render(report))
    assert document == {
        "byoa_check": 1,
        "subject": {"kind": "image", "name": "mine:1 <& co>", "about": "linux/amd64, 0.24 GB"},
        "started": "2025-01-02T03:04:05+00:00",
        "seconds": 1.5,
        "summary": {"pass": 1, "fail": 1, "skip": 1, "error": 1, "warning": 0},
        "checks": [
            {
                "id": "entry-form", "group": "image", "level": "error",
                "title": "entry-form is right", "clauses": ["TRAIN-05", "CHK-15"],
                "outcome": "fail", "seconds": 0.25,
                "cause": "ENTRYPOINT is <sh -c> & 'x'", "cure": "write it as an array",
                "evidence": "\x1b[31mred\x00\nlast line",
            },
            {
                "id": "platform", "group": "image", "level": "error",
                "title": "platform is right", "clauses": ["TRAIN-05", "CHK-15"],
                "outcome": "pass", "seconds": 0.25,
                "cause": "", "cure": "", "evidence": "linux/amd64",
            },
            {
                "id": "train-ends", "group": "training", "level": "error",
                "title": "train-ends is right", "clauses": ["TRAIN-05", "CHK-15"],
                "outcome": "skip", "seconds": 0.25,
                "cause": "it needs platform", "cure": "", "evidence": "",
            },
        ],
    }


# What the schema that Jenkins and others check JUnit XML by asks of each element: the attributes
# that it must have, and the elements that it may hold, in this order.
JUNIT = {
    "testsuites": ((), ("testsuite",)),
    "testsuite": (
        ("name", "timestamp", "hostname", "tests", "failures", "errors", "time"),
        ("properties", "testcase", "system-out", "system-err"),
    ),
    "testcase": (("name", "classname", "time"), ("skipped", "error", "failure", "system-out")),
    "properties": ((), ("property",)),
    "failure": (("type",), ()),
    "skipped": ((), ()),
    "system-out": ((), ()),
    "system-err": ((), ()),
}


def _valid_junit(element: ElementTree.Element) -> None:
    required, children = JUNIT[element.tag]
    assert set(required) <= set(element.attrib), element.tag
    order = [children.index(child.tag) for child in element]
    assert order == sorted(order), element.tag
    for child in element:
        _valid_junit(child)


def test_the_junit_report_is_well_formed_and_fits_the_usual_schema(report: Report) -> None:
    text = junit.render(report)
    root = ElementTree.fromstring(text.encode())
    _valid_junit(root)
    assert (root.get("tests"), root.get("failures"), root.get("skipped")) == ("3", "1", "1")
    suites = {suite.get("name"): suite for suite in root}
    assert list(suites) == ["image", "training"]
    assert suites["image"].get("timestamp") == "2025-01-02T03:04:05"
    failure = suites["image"].find("testcase/failure")
    assert failure is not None and failure.text is not None
    assert failure.get("message") == "ENTRYPOINT is <sh -c> & 'x'"
    assert "cure: write it as an array" in failure.text
    assert "last line" in failure.text
    case = suites["training"].find("testcase")
    assert case is not None and case.find("skipped") is not None


# The parts of SARIF 2.1.0 that a reader relies on: type, required members, allowed values.
TEXT: dict[str, Any] = {"type": str}
MESSAGE: dict[str, Any] = {"type": dict, "required": {"text": TEXT}}
SARIF: dict[str, Any] = {
    "type": dict,
    "required": {
        "version": {"type": str, "values": ("2.1.0",)},
        "runs": {"type": list, "items": {
            "type": dict,
            "required": {
                "tool": {"type": dict, "required": {"driver": {
                    "type": dict,
                    "required": {"name": TEXT, "rules": {"type": list, "items": {
                        "type": dict,
                        "required": {"id": TEXT, "shortDescription": MESSAGE, "help": MESSAGE},
                    }}},
                }}},
                "results": {"type": list, "items": {
                    "type": dict,
                    "required": {
                        "ruleId": TEXT,
                        "ruleIndex": {"type": int},
                        "kind": {"type": str, "values": ("pass", "fail", "notApplicable")},
                        "level": {"type": str, "values": ("error", "warning", "none")},
                        "message": MESSAGE,
                        "locations": {"type": list, "items": {"type": dict, "required": {
                            "logicalLocations": {"type": list, "items": {
                                "type": dict, "required": {"fullyQualifiedName": TEXT},
                            }},
                        }}},
                    },
                }},
                "invocations": {"type": list, "items": {
                    "type": dict, "required": {"executionSuccessful": {"type": bool}},
                }},
            },
        }},
    },
}


def _valid(value: Any, schema: dict[str, Any], at: str = "$") -> None:
    assert type(value) is schema["type"], at
    assert value in schema.get("values", (value,)), at
    for name, member in schema.get("required", {}).items():
        assert name in value, f"{at}.{name}"
        _valid(value[name], member, f"{at}.{name}")
    for number, item in enumerate(value if "items" in schema else ()):
        _valid(item, schema["items"], f"{at}[{number}]")


def test_the_sarif_report_has_a_rule_and_a_result_for_every_check(report: Report) -> None:
    document = json.loads(sarif.render(report))
    _valid(document, SARIF)
    (run,) = document["runs"]
    rules = run["tool"]["driver"]["rules"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        # Section 3.27.10: what is no failure has the level "none".
        assert (result["kind"] == "fail") == (result["level"] != "none")
    assert [each["kind"] for each in run["results"]] == ["fail", "pass", "notApplicable"]
    assert run["results"][0]["message"]["text"].endswith("To do: write it as an array.")
    assert run["invocations"][0]["startTimeUtc"] == "2025-01-02T03:04:05Z"


@pytest.fixture
def warned() -> Report:
    """A warning, an error, and what is skipped since the error's check did not pass."""
    return Report("mine", "image", "", [
        _result("unbuffered", "training", failed("it is not set"), level="warning"),
        _result("starts", "training", failed("it does not start")),
        _result("ends", "training", skipped("it needs starts, which did not pass"), root="starts"),
        _result("model", "training", skipped("it needs ends, which did not pass"), root="starts"),
        _result("pipes", "training", skipped("no channel is read in Pipe mode")),
        _result("platform", "image", passed()),
    ], datetime.now(timezone.utc), 0.1)


def test_the_table_tells_warnings_from_errors_and_folds_what_needs_one_check(
    warned: Report,
) -> None:
    lines = table.render(warned).splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("  warn unbuffered"))
    assert lines[at + 1 : at + 3] == ["       why:  it is not set", "       cure: mend unbuffered"]
    assert any(line.startswith("  FAIL starts") for line in lines)
    assert "  -    2 more need starts" in lines
    assert not any("ends" in line or "model" in line for line in lines)
    assert lines[-1].endswith("1 hold, 1 error, 1 warning, 3 skipped")


def test_a_short_table_has_what_does_not_hold_and_the_summary(warned: Report) -> None:
    lines = table.render(warned, failures=True).splitlines()
    assert [line.split()[:2] for line in lines if line.startswith("  ") and line[2] != " "] == [
        ["warn", "unbuffered"], ["FAIL", "starts"],
    ]
    assert "image" not in lines
    assert lines[-1].startswith("6 checks of mine")


def test_every_format_tells_a_warning_from_an_error(warned: Report) -> None:
    summary = json.loads(json_report.render(warned))["summary"]
    assert (summary["fail"], summary["error"], summary["warning"]) == (2, 1, 1)
    results = json.loads(sarif.render(warned))["runs"][0]["results"]
    assert [each["level"] for each in results][:3] == ["warning", "error", "none"]
    root = ElementTree.fromstring(junit.render(warned).encode())
    _valid_junit(root)
    assert root.get("failures") == "1"
    case = root.find("testsuite/testcase[@name='unbuffered']")
    assert case is not None and case.find("failure") is None
    assert "cure: mend unbuffered" in (case.findtext("system-out") or "")
