"""The metric line, and the expressions with which SageMaker reads it (TRAIN-26, TRAIN-190)."""

import json
import math
import re

import pytest

from byoa.container.errors import AlgorithmError
from byoa.container.metrics import Metrics, format_line


class Scalar:
    """Like the scalars of NumPy and torch."""

    def __float__(self):
        return 0.5


def scrape(definition, line):
    match = re.search(definition.regex, line)
    return match and float(match.group(1))


def test_a_metric_is_a_stable_line_and_a_json_line(tmp_path, capsys):
    metrics = Metrics(tmp_path / "metrics", host="algo-1")
    metrics.log("train:loss", 0.123456, step=4)
    metrics.log("train:accuracy", Scalar())
    assert capsys.readouterr().out == "train:loss=0.123456; step=4\ntrain:accuracy=0.5\n"
    records = [json.loads(line) for line in metrics.path.read_text().splitlines()]
    assert [(r["name"], r["value"], r["step"], r["host"]) for r in records] == [
        ("train:loss", 0.123456, 4, "algo-1"), ("train:accuracy", 0.5, None, "algo-1")
    ]
    assert all(isinstance(record["time"], float) for record in records)


@pytest.mark.parametrize("value", [
    0.0, 1.0, -1.0, 0.1, 123456789.0, 1e-7, -3.5e-12, 2.5e30, 1e9, 12, 1e-300, 5e-324,
    0.3219280242919922, float("1e100"),
])
@pytest.mark.parametrize("step", [None, 0, 17])
def test_the_definition_captures_every_number_that_is_logged(value, step):
    """TRAIN-190: scientific notation included; nine digits are all of a float32."""
    (definition,) = Metrics.definitions(["val:loss"])
    assert scrape(definition, format_line("val:loss", value, step)) == float(f"{value:.9g}")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_printed_but_not_captured(tmp_path, capsys, value):
    metrics = Metrics(tmp_path)
    metrics.log("loss", value, step=1)
    line = capsys.readouterr().out.strip()
    assert line == f"loss={value}; step=1"
    assert scrape(Metrics.definitions(["loss"])[0], line) is None
    assert json.loads(metrics.path.read_text())["value"] == str(value)


@pytest.mark.parametrize("prefix", ["", "[1,mpirank:0,algo-1]<stdout>:", "2025-01-02 INFO "])
def test_the_definition_is_not_anchored_at_the_line_s_start(prefix):
    """TK-11"""
    (definition,) = Metrics.definitions(["train:loss"])
    assert scrape(definition, f"{prefix}train:loss=0.25; step=3") == 0.25


def test_a_name_that_ends_another_is_not_mistaken_for_it():
    (loss,) = Metrics.definitions(["loss"])
    assert scrape(loss, "val:loss=1") is None
    assert scrape(loss, "my-loss=1") is None
    assert scrape(loss, "loss2=1") is None
    (dotted,) = Metrics.definitions(["f1.macro"])
    assert scrape(dotted, "f1xmacro=1") is None
    assert scrape(dotted, "f1.macro=1") == 1.0


def test_definitions_fit_the_limits_of_the_request():
    """TRAIN-26: a regex has at most 500 characters."""
    (definition,) = Metrics.definitions(["m" * 255])
    assert len(definition.regex) <= 500
    assert definition.name == "m" * 255


@pytest.mark.parametrize("name", ["", "a b", "a=b", "a;b", "a\nb", "x" * 256])
def test_a_name_that_no_expression_could_read_is_refused(tmp_path, name):
    with pytest.raises(AlgorithmError, match="METRIC_NAME_INVALID"):
        Metrics(tmp_path).log(name, 1.0)


def test_a_value_that_is_no_number_is_refused_by_the_metric_s_name(tmp_path):
    with pytest.raises(AlgorithmError, match="the value of loss is a list"):
        Metrics(tmp_path).log("loss", [1.0])


def test_a_later_host_writes_its_file_and_prints_nothing(tmp_path, capsys):
    """TRAIN-194"""
    metrics = Metrics(tmp_path, host="algo-2", leader=False)
    metrics.log("loss", 1.0)
    assert capsys.readouterr().out == ""
    assert json.loads(metrics.path.read_text())["host"] == "algo-2"


def test_a_metric_stands_on_a_line_of_its_own_after_an_open_one(tmp_path, capsys):
    """TRAIN-190: an expression that begins at the line's start would miss it otherwise."""
    metrics = Metrics(tmp_path, end_line=lambda: print())
    print("epoch 1 …", end="")
    metrics.log("train:loss", 0.5)
    assert capsys.readouterr().out.splitlines() == ["epoch 1 …", "train:loss=0.5"]
