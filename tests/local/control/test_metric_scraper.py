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


@pytest.mark.parametrize(
    ("regex", "line", "obstacle"),
    [
        (r"loss=([0-9.]+)", "\x1b[1mloss\x1b[0m=\x1b[31m0.5\x1b[0m", "ANSI codes"),
        (r"^loss: ([0-9.]+)$", "10%|#   |\r50%|##  |\rloss: 0.25", "progress bar"),
        (r"loss: ([0-9.]+)$", "loss: 0.25\r", r"ends in \r\n"),
        (r"^loss: ([0-9.]+)", "[1,mpirank:0,algo-1]<stdout>:loss: 0.25", "mpirun"),
    ],
)
def test_a_note_says_what_stands_between_the_expression_and_its_text(
    regex: str, line: str, obstacle: str
) -> None:
    """TRAP-27, TK-11."""
    found, notes = scrape(regex, "loss of all: 17", line, "loss anywhere 0.1")

    assert found == []
    assert obstacle in notes[0]
    assert repr(line) in notes[0]


def test_a_line_without_an_obstacle_is_blamed_on_none() -> None:
    _, notes = scrape(r"accuracy=(\d+)", "[a list] accuracy 0.5\x1b[0m")

    assert notes[0].endswith(r"nearest line: '[a list] accuracy 0.5\x1b[0m'")


def test_the_lines_of_run_metrics_log_that_no_definition_names_are_found_apart() -> None:
    """Their author may have forgotten the definition; they are no metrics of the job."""
    scraper = MetricScraper([MetricDefinition("loss", r"loss=(\d+)")])
    found = [
        value
        for line in ("loss=1; step=1", "train:f1=0.5; step=2", "[1,mpirank:0,algo-1]<stdout>:auc=1",
                     "total=7 of 9", "a=b", "gamma=nan")
        for value in scraper.scrape(0.0, line)
    ]

    assert [(each.name, each.value, each.step, each.defined) for each in found] == [
        ("loss", 1.0, 1, True), ("train:f1", 0.5, 2, False), ("auc", 1.0, None, False),
    ]
    assert [each["MetricName"] for each in scraper.final] == ["loss"]


def test_not_every_name_of_a_program_that_prints_many_is_kept() -> None:
    scraper = MetricScraper([])

    assert sum(len(scraper.scrape(0.0, f"key-{i}=1")) for i in range(1000)) == 200
    assert len(scraper.scrape(0.0, "key-5=1")) == 1


@pytest.mark.parametrize(
    ("line", "step"),
    [("loss=1; step=4", 4), ("Epoch 3/10 loss=1", 3), ("[epoch: 7] loss=1", 7),
     ("iteration=12 loss=1", 12), ("timestep loss=1", None), ("loss=1", None)],
)
def test_a_value_has_the_step_that_its_line_says(line: str, step: int | None) -> None:
    (value,) = MetricScraper([MetricDefinition("m", r"loss=(\d+)")]).scrape(0.0, line)

    assert value.step == step
