"""Metrics out of lines, and what is said of those that find nothing."""

from __future__ import annotations

import time

import pytest

from byoa.container.contract import MetricDefinition
from byoa.local.control.metric_scraper import MetricScraper, problem


def scrape(regex: str, *lines: str) -> tuple[list[float], list[str]]:
    scraper = MetricScraper([MetricDefinition("m", regex)])
    found = [value.value for i, line in enumerate(lines) for value in scraper.scrape(i, line)]
    return found, scraper.notes()


@pytest.mark.parametrize(
    ("regex", "line", "value"),
    [
        (r"loss: ([0-9\.]+)", "epoch 1 loss: 0.25 s", 0.25),
        (r"loss=(\S+)", "loss=1e-3", 0.001),
        (r"loss=(\S+)", "loss=-2", -2.0),
        (r"^loss=(\d+)$", "loss=3", 3.0),
        (r"(?:train|val)_loss=(\d+)", "val_loss=7", 7.0),
        (r"a=(\d+) b=(\d+)", "a=1 b=2", 1.0),  # the first group
        (r"\p{L}+=(\d+)", "größe=4", 4.0),
    ],
)
def test_the_first_group_is_searched_anywhere_in_the_line(
    regex: str, line: str, value: float
) -> None:
    """TRAIN-190."""
    assert scrape(regex, line) == ([value], [])


def test_a_line_of_an_earlier_moment_does_not_take_the_final_value_back() -> None:
    """TRAIN-194: logs of several hosts are read again one after the other."""
    scraper = MetricScraper([MetricDefinition("m", "m=(.+)")])
    assert scraper.scrape(20.0, "m=2")[0].value == 2.0
    assert scraper.scrape(10.0, "m=1")[0].value == 1.0
    assert [each["Value"] for each in scraper.final] == [2.0]


def test_the_last_value_is_the_final_one() -> None:
    """TRAIN-191."""
    scraper = MetricScraper([MetricDefinition("a", "a=(.+)"), MetricDefinition("b", "b=(.+)")])
    for moment, line in enumerate(["a=1", "b=5", "a=2"]):
        scraper.scrape(float(moment), line)

    assert scraper.final == [
        {"MetricName": "a", "Value": 2.0, "Timestamp": 2.0},
        {"MetricName": "b", "Value": 5.0, "Timestamp": 1.0},
    ]


@pytest.mark.parametrize("line", ["loss=", "loss=abc", "loss=nan", "loss=inf"])
def test_what_is_no_finite_number_is_passed_over_and_noted(line: str) -> None:
    """TRAIN-190; a lazy expression that captures nothing used to go unnoticed."""
    found, notes = scrape("loss=(.*)", line)

    assert found == []
    assert f"captured {line[5:]!r}, which is no finite number" in notes[0]


def test_an_expression_without_a_match_is_noted_with_the_nearest_line() -> None:
    _, notes = scrape("validation_loss=([0-9.]+)", "start", "validation loss: 0.5", "done 3")

    assert notes == [
        "metric 'm' (validation_loss=([0-9.]+)): 0 matches in 3 lines; nearest line:"
        " 'validation loss: 0.5'"
    ]


def test_an_expression_that_takes_exponential_time_is_given_up_and_the_others_go_on() -> None:
    scraper = MetricScraper(
        [MetricDefinition("slow", r"(a*)*\1b=(\d+)|((x+x+)+y)"), MetricDefinition("b", r"n=(\d+)")]
    )
    began = time.monotonic()
    for number in range(50):
        scraper.scrape(0.0, "a" * 2000 + "x" * 2000 + f" n={number}")

    assert time.monotonic() - began < 30  # 50 such lines would take hours
    assert scraper.final == [{"MetricName": "b", "Value": 49.0, "Timestamp": 0.0}]
    assert "given up" in scraper.notes()[0]


@pytest.mark.parametrize(
    ("regex", "text"),
    [("(", "is no regular expression"), ("a=[0-9]", "no group"), ("a=(?:1)", "no group")],
)
def test_an_expression_that_cannot_work_is_found_beforehand(regex: str, text: str) -> None:
    found = problem(MetricDefinition("m", regex))

    assert found is not None and text in found
    assert problem(MetricDefinition("m", r"a=(\d+)")) is None
