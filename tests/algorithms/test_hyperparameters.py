"""Declared hyperparameters: SageMaker's strings in, typed values or one complete error out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Literal, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byoa.algorithms import Hyperparameters, param
from byoa.algorithms.registry import find
from byoa.container.errors import HyperparameterError


class Every(Hyperparameters):
    count: int = param(3, doc="a whole number", min=1, max=1000)
    rate: float = param(0.1, doc="a number", min=0)
    flag: bool = param(False, doc="a switch")
    text: str = param("abc", doc="any text")
    choice: Literal["adam", "sgd"] = param("adam", doc="one | of two")
    level: Literal[1, 2, "auto"] = param("auto", doc="mixed choices")
    units: list[int] = param([8], doc="whole numbers", min=1, max=64)
    weights: list[float] = param([], doc="numbers")
    names: list[str] = param(["a"], doc="texts")
    limit: Optional[int] = param(None, doc="a whole number or nothing", max=9)  # noqa: UP045
    more: dict[str, Any] = param({}, doc="anything")


class Needs(Hyperparameters):
    k: int = param(doc="required", min=2)
    name: str = param(doc="required too")


def value(name: str, text: str) -> Any:
    return getattr(Every.parse({name: text}), name)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("count", "10", 10),
        ("count", '"10"', 10),  # a framework estimator's quotes (TRAIN-42)
        ("count", " 10 ", 10),
        ("count", "+10", 10),
        ("count", "010", 10),
        ("count", "1e2", 100),
        ("count", "10.0", 10),
        ("rate", "1", 1.0),
        ("rate", "1e-3", 0.001),
        ("rate", "1E3", 1000.0),
        ("rate", ".5", 0.5),
        ("rate", "5.", 5.0),
        ("rate", '"0.25"', 0.25),
        ("flag", "true", True),
        ("flag", "True", True),
        ("flag", "TRUE", True),
        ("flag", "1", True),
        ("flag", '"true"', True),
        ("flag", "false", False),
        ("flag", "False", False),  # with type=bool of argparse this would be True
        ("flag", "0", False),
        ("text", "a b", "a b"),
        ("text", '"a b"', "a b"),
        ("text", "", ""),
        ("text", '""', ""),
        ("text", '"', '"'),
        ("text", '"half', '"half'),
        ("text", '"not" json"', '"not" json"'),
        ("text", "001", "001"),
        ("text", "10", "10"),
        ("text", "null", "null"),
        ("text", "NaN", "NaN"),
        ("text", "ünï·文字", "ünï·文字"),
        ("text", '"\\u00fc"', "ü"),
        ("text", "$(touch x); `ls` && rm -rf *", "$(touch x); `ls` && rm -rf *"),
        ("text", "[1, 2]", "[1, 2]"),
        ("text", "  spaces  ", "  spaces  "),
        ("choice", "sgd", "sgd"),
        ("choice", '"sgd"', "sgd"),  # a tuner's categorical value (TRAIN-44)
        ("level", "2", 2),
        ("level", '"auto"', "auto"),
        ("units", "[1, 2]", [1, 2]),
        ("units", "[1,2]", [1, 2]),
        ("units", "1,2", [1, 2]),
        ("units", "1, 2", [1, 2]),
        ("units", "64", [64]),
        ("units", "[1e1]", [10]),
        ("units", "(1, 2)", [1, 2]),
        ("units", "[]", []),
        ("units", "", []),
        ("units", '"[1, 2]"', [1, 2]),
        ("weights", "[1, 0.5]", [1.0, 0.5]),
        ("names", '["a", "b c"]', ["a", "b c"]),
        ("names", "['a', 'b c']", ["a", "b c"]),  # str(list) of the SDK's generic estimator
        ("names", "a,b c", ["a", "b c"]),
        ("limit", "5", 5),
        ("limit", "null", None),
        ("limit", "None", None),
        ("more", '{"a": [1, {"b": null}]}', {"a": [1, {"b": None}]}),
        ("more", "{'a': True}", {"a": True}),
    ],
)
def test_a_string_becomes_a_value_of_the_declared_type(name: str, text: str, expected: Any) -> None:
    """TRAIN-41, TRAIN-42, TRAIN-43."""
    read = value(name, text)
    assert read == expected
    assert type(read) is type(expected)


@pytest.mark.parametrize(
    ("name", "text", "expectation"),
    [
        ("count", "0", "an integer, 1 to 1000"),
        ("count", "1001", "an integer, 1 to 1000"),
        ("count", "1.5", "an integer, 1 to 1000"),
        ("count", "ten", "an integer, 1 to 1000"),
        ("count", "", "an integer, 1 to 1000"),
        ("count", "true", "an integer, 1 to 1000"),
        ("count", "1_0", "an integer, 1 to 1000"),
        ("count", "١", "an integer, 1 to 1000"),
        ("count", "0x10", "an integer, 1 to 1000"),
        ("count", "1e999", "an integer, 1 to 1000"),
        ("count", "NaN", "an integer, 1 to 1000"),
        ("count", "9" * 5000, "an integer, 1 to 1000"),
        ("rate", "-0.1", "a number, at least 0"),
        ("rate", "NaN", "a number, at least 0"),
        ("rate", "nan", "a number, at least 0"),
        ("rate", "Infinity", "a number, at least 0"),
        ("rate", "1e999", "a number, at least 0"),
        ("rate", "fast", "a number, at least 0"),
        ("flag", "yes", "true or false"),
        ("flag", "2", "true or false"),
        ("flag", "", "true or false"),
        ("choice", "Adam", "one of adam, sgd"),
        ("level", "3", "one of 1, 2, auto"),
        ("units", "[1, 65]", "a list of integers such as [1, 2], each 1 to 64"),
        ("units", "[1, true]", "a list of integers such as [1, 2], each 1 to 64"),
        ("units", "[1, 2", "a list of integers such as [1, 2], each 1 to 64"),
        ("units", "[[1]]", "a list of integers such as [1, 2], each 1 to 64"),
        ("units", "1,,2", "a list of integers such as [1, 2], each 1 to 64"),
        ("units", "[" * 2500, "a list of integers such as [1, 2], each 1 to 64"),
        ("weights", "[NaN]", "a list of numbers such as [0.1, 0.2]"),
        ("names", "[__import__('os').getcwd()]", 'a list of strings such as ["a", "b"]'),
        ("names", "['\\d", 'a list of strings such as ["a", "b"]'),
        ("limit", "10", "an integer or null, at most 9"),
        ("more", "[]", 'a JSON object such as {"a": 1}'),
        ("more", '{"a": NaN}', 'a JSON object such as {"a": 1}'),
        ("more", "{1, 2}", 'a JSON object such as {"a": 1}'),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_value_and_expectation(
    name: str, text: str, expectation: str
) -> None:
    with pytest.raises(HyperparameterError) as caught:
        value(name, text)
    assert caught.value.code == "HYPERPARAMETER_INVALID"
    shown = repr(text) if len(repr(text)) <= 60 else repr(text)[:60] + "…"
    assert caught.value.message == (
        f"1 hyperparameter is wrong: {name} = {shown}: expected {expectation}"
    )


def test_everything_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(HyperparameterError) as caught:
        Needs.parse({"k": "1", "nmae": "x", "zzz": "1"})
    assert caught.value.message == (
        "4 hyperparameters are wrong: k = '1': expected an integer, at least 2;"
        " name is missing: expected a string; nmae: no such hyperparameter; did you mean name?;"
        " zzz: no such hyperparameter"
    )
    assert caught.value.remedy == "known names: k, name"


def test_reserved_keys_are_passed_over() -> None:
    """TRAIN-44, TRAIN-45."""
    reserved = {
        "sagemaker_program": '"train.py"',
        "sagemaker_container_log_level": "20",
        "_tuning_objective_metric": '"validation:accuracy"',
        "default_user_module_name": "user_module",
    }
    assert Every.parse(reserved) == Every()


def test_what_is_not_given_takes_its_default_in_a_copy_of_its_own() -> None:
    one, other = Every.parse({}), Every.parse({})
    assert (one.count, one.units, one.limit) == (3, [8], None)
    one.units.append(9)
    assert other.units == [8]
    assert Every().units == [8]


@given(
    st.fixed_dictionaries(
        {
            "count": st.integers(1, 1000),
            "rate": st.floats(0, allow_nan=False, allow_infinity=False),
            "flag": st.booleans(),
            "text": st.text(),
            "units": st.lists(st.integers(1, 64)),
            "names": st.lists(st.text()),
            "limit": st.none() | st.integers(-9, 9),
            "more": st.dictionaries(st.text(), st.integers() | st.text() | st.none()),
        }
    )
)
def test_values_come_back_from_json_and_from_a_json_encoding_client(values: dict[str, Any]) -> None:
    """TRAIN-42: script-mode estimators JSON-encode every value."""
    made = Every(**values)
    assert Every.from_json(json.loads(json.dumps(made.to_json()))) == made
    assert Every.parse({name: json.dumps(each) for name, each in values.items()}) == made


def test_from_json_takes_no_text_for_a_number() -> None:
    with pytest.raises(HyperparameterError, match="count = '3': expected an integer"):
        Every.from_json({"count": "3"})
    assert Every.from_json({"text": '"quoted"'}).text == '"quoted"'


def test_values_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="read-only"):
        Every().count = 4


def test_the_table_documents_every_hyperparameter() -> None:
    rows = {row.name: row for row in Every.table()}
    assert list(rows) == list(Every.fields())
    assert rows["count"][1:] == ("integer", "3", "1 to 1000", "a whole number")
    assert rows["rate"].range == "at least 0"
    assert rows["choice"][1:4] == ("string", "adam", "adam, sgd")
    assert rows["level"].type == "integer or string"
    assert rows["units"][1:4] == ("list of integers", "[8]", "each 1 to 64")
    assert rows["limit"][1:4] == ("integer or null", "null", "at most 9")
    assert Needs.table()[0].default == "required"
    markdown = Every.markdown().splitlines()
    assert markdown[0] == "| Hyperparameter | Type | Default | Range | Meaning |"
    assert markdown[2] == "| `count` | integer | 3 | 1 to 1000 | a whole number |"
    assert "one \\| of two" in markdown[6]


# --- declarations in an author's module -------------------------------------------------------

IDIOMS = {
    "Algorithm.Hyperparameters": "from byoa.algorithms import Algorithm, param",
    "Hyperparameters": "from byoa.algorithms import Algorithm, Hyperparameters, param",
}


@pytest.mark.parametrize("base", IDIOMS)
@pytest.mark.parametrize("future", ["from __future__ import annotations\n", ""])
def test_a_nested_class_resolves_its_types_in_the_authors_module(
    module: Callable[[str, str], str], base: str, future: str
) -> None:
    name = module(
        f"author_{len(base)}_{len(future)}",
        f"""{future}{IDIOMS[base]}
from typing import Literal as Choice, Optional
Sizes = list[int]

class Mine(Algorithm):
    class Hyperparameters({base}):
        mode: Choice["a", "b"] = param("a", doc="mode")
        sizes: Sizes = param([1], doc="sizes", min=1)
        limit: Optional[float] = param(None, doc="limit")
        other: int | None = param(None, doc="other")
    def train(self, run): ...
    def load(self, model_dir, device): ...
    def predict(self, model, records): ...

class Younger(Mine):
    class Hyperparameters(Mine.Hyperparameters):
        mode: Choice["a", "b", "c"] = param("c", doc="mode")
        extra: bool = param(False, doc="extra")
""",
    )
    mine = find(f"{name}:Mine").Hyperparameters
    given = {"mode": "b", "sizes": "2,3", "limit": "0.5", "other": "7"}
    assert mine.parse(given).to_json() == {"mode": "b", "sizes": [2, 3], "limit": 0.5, "other": 7}
    younger = find(f"{name}:Younger").Hyperparameters
    assert list(younger.fields()) == ["mode", "sizes", "limit", "other", "extra"]
    assert younger.parse({}).mode == "c"
    assert mine.parse({}).mode == "a"


@pytest.mark.parametrize(
    ("declaration", "message"),
    [
        ("a: int = 3", "Mine.a: declare it as param"),
        ("a: int", "Mine.a: declare it as param"),
        ("a = param(3, doc='')", "Mine.a: declare its type"),
        ("_a: int = param(3, doc='')", "Mine._a: declare its type, and no leading _"),
        ("a: complex = param(3, doc='')", "Mine.a: <class 'complex'> is no type"),
        ("a: list[list[int]] = param([], doc='')", "Mine.a: list"),
        ("a: Literal[None] = param(None, doc='')", "Mine.a: .* is no type"),
        ("a: int | str = param(3, doc='')", "Mine.a: .* is no type"),
        ("a: int = param('x', doc='')", "Mine.a: the default 'x' is not an integer"),
        ("a: int = param(0, doc='', min=1)", "Mine.a: the default 0 is not an integer, at least 1"),
        ("a: str = param('', doc='', min=1)", "Mine.a: min and max need a number"),
        ("parse: int = param(1, doc='')", "Mine.parse: the name is taken"),
        ("sagemaker_x: int = param(1, doc='')", "Mine.sagemaker_x: SageMaker reserves"),
        ("default_user_module_name: int = param(1, doc='')", "SageMaker reserves the name"),
        ("a: Unknown = param(1, doc='')", "Mine: an annotation names 'Unknown', which module"),
    ],
)
def test_a_declaration_that_makes_no_sense_is_the_authors_error(
    module: Callable[[str, str], str], declaration: str, message: str
) -> None:
    import importlib

    name = module(
        "declares",
        "from __future__ import annotations\nfrom typing import Literal\n"
        "from byoa.algorithms import Hyperparameters, param\n"
        f"class Mine(Hyperparameters):\n    {declaration}\n",
    )
    with pytest.raises(TypeError, match=message):
        importlib.import_module(name).Mine.parse({})


def test_the_authoring_api_imports_the_standard_library_only() -> None:
    heavy = ("numpy", "torch", "flask", "boto3", "safetensors")
    program = (
        "import sys, byoa.algorithms, byoa.algorithms.registry\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


class Words(Hyperparameters):
    rate: Literal["auto"] | float = param("auto", doc="a word or a number", min=0.5)
    count: Literal["auto", "all"] | int = param(3, doc="one of two words or an integer")
    switch: Literal["auto"] | bool = param("auto", doc="a word or a boolean")


def test_a_word_may_stand_in_for_a_value() -> None:
    values = Words.parse({"rate": "0.75", "count": "all", "switch": "True"})
    assert (values.rate, values.count, values.switch) == (0.75, "all", True)
    assert Words.from_json(values.to_json()) == values
    defaults = Words()
    assert (defaults.rate, defaults.count, defaults.switch) == ("auto", 3, "auto")
    assert Words.parse({"rate": '"auto"'}).rate == "auto"
    assert [row.type for row in Words.table()] == [
        "auto or number", "auto, all or integer", "auto or boolean",
    ]


def test_neither_the_word_nor_the_value_is_refused_with_both() -> None:
    with pytest.raises(HyperparameterError) as caught:
        Words.parse({"rate": "0.1", "count": "some", "switch": "2"})
    assert "rate = '0.1': expected auto, or a number, at least 0.5" in caught.value.message
    assert "count = 'some': expected auto, all, or an integer" in caught.value.message
    assert "switch = '2': expected auto, or true or false" in caught.value.message
