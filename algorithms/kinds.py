"""The types that a hyperparameter may have, and how each is read from text or from JSON.

    Scalar    int, float, bool, str
    Choice    Literal[...]
    Array     list[int], list[float], list[bool], list[str]
    Document  dict: any JSON object
    Nullable  Optional of one of these
    Either    a Literal or a Scalar, as Literal["auto"] | float

SageMaker delivers every value as a string, quoted as JSON by some clients, as Python's `str` by
others (TRAIN-41, TRAIN-42): `from_text` takes both. `from_json` takes a value that has its type.
Both raise ValueError when the value doesn't fit; the caller says what was expected.
"""

from __future__ import annotations

import ast
import json
import math
import re
import types
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_SINGULAR = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}
_TYPE_NAMES = {int: "integer", float: "number", bool: "boolean", str: "string"}


class Kind(ABC):
    """A type of hyperparameter."""

    @property
    @abstractmethod
    def type_name(self) -> str:
        """For the documentation: "integer", "list of numbers"."""

    @property
    @abstractmethod
    def expectation(self) -> str:
        """For an error: "an integer", "a list of numbers such as [0.1, 0.2]"."""

    @property
    def range(self) -> str:
        """The values that there are, where the type alone says it."""
        return ""

    @property
    def range_prefix(self) -> str:
        """ "each " where a declared range holds for every item."""
        return ""

    @property
    def bounded(self) -> bool:
        """Whether a declared range makes sense."""
        return False

    @abstractmethod
    def from_text(self, text: str) -> Any:
        """The value that a client wrote as `text`."""

    @abstractmethod
    def from_json(self, value: Any) -> Any:
        """`value`, checked to be of this kind."""

    def numbers(self, value: Any) -> Iterator[float]:
        """The numbers in `value` that a range applies to."""
        return iter(())


@dataclass(frozen=True)
class Scalar(Kind):
    """int, float, bool or str."""

    type: type

    @property
    def type_name(self) -> str:
        return _TYPE_NAMES[self.type]

    @property
    def expectation(self) -> str:
        return _SINGULAR[self.type]

    @property
    def bounded(self) -> bool:
        return self.type in (int, float)

    def from_text(self, text: str) -> Any:
        if self.type is str:
            return text
        text = text.strip()
        if self.type is bool:
            if text.lower() not in _BOOLEANS:
                raise ValueError(text)
            return _BOOLEANS[text.lower()]
        if self.type is int and _INTEGER.fullmatch(text):
            return int(text)
        # Not float() alone: it also takes "nan", "1_0" and digits of other scripts.
        if not _NUMBER.fullmatch(text):
            raise ValueError(text)
        return self.from_json(float(text))

    def from_json(self, value: Any) -> Any:
        if self.type in (str, bool):
            if not isinstance(value, self.type):
                raise ValueError(value)
            return value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(value)
        if not math.isfinite(value):
            raise ValueError(value)
        if self.type is float:
            return float(value)
        if value != int(value):
            raise ValueError(value)
        return int(value)

    def numbers(self, value: Any) -> Iterator[float]:
        return iter((value,)) if self.bounded else iter(())


@dataclass(frozen=True)
class Choice(Kind):
    """One of a few values, from Literal."""

    choices: tuple[Any, ...]

    @property
    def type_name(self) -> str:
        return " or ".join(dict.fromkeys(_TYPE_NAMES[type(each)] for each in self.choices))

    @property
    def expectation(self) -> str:
        return f"one of {self.range}"

    @property
    def range(self) -> str:
        return ", ".join(show(each) for each in self.choices)

    def from_text(self, text: str) -> Any:
        for choice in self.choices:
            try:
                return self.from_json(Scalar(type(choice)).from_text(text))
            except ValueError:
                continue
        raise ValueError(text)

    def from_json(self, value: Any) -> Any:
        for choice in self.choices:
            if type(value) is type(choice) and value == choice:
                return choice
        raise ValueError(value)


@dataclass(frozen=True)
class Array(Kind):
    """A list of scalars: "[1, 2]", "1,2", or Python's "['a', 'b']"."""

    item: Scalar
    range_prefix = "each "

    @property
    def type_name(self) -> str:
        return f"list of {self.item.type_name}s"

    @property
    def expectation(self) -> str:
        return f"a list of {self.item.type_name}s such as {self._example}"

    @property
    def _example(self) -> str:
        return {int: "[1, 2]", float: "[0.1, 0.2]", bool: "[true, false]", str: '["a", "b"]'}[
            self.item.type
        ]

    @property
    def bounded(self) -> bool:
        return self.item.bounded

    def from_text(self, text: str) -> Any:
        stripped = text.strip()
        if stripped.startswith(("[", "(")):
            return self.from_json(_literal(stripped))
        if not stripped:
            return []
        return [self.item.from_text(part.strip()) for part in stripped.split(",")]

    def from_json(self, value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise ValueError(value)
        return [self.item.from_json(each) for each in value]

    def numbers(self, value: Any) -> Iterator[float]:
        return (number for each in value for number in self.item.numbers(each))


class Document(Kind):
    """Any JSON object."""

    type_name = "object"
    expectation = 'a JSON object such as {"a": 1}'

    def from_text(self, text: str) -> Any:
        return self.from_json(_literal(text.strip()))

    def from_json(self, value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError(value)
        try:
            # A copy of what JSON can carry, so that the model's manifest can hold it.
            return json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, RecursionError) as error:
            raise ValueError(value) from error


@dataclass(frozen=True)
class Nullable(Kind):
    """A kind or nothing, written "null" (JSON) or "None" (Python)."""

    inner: Kind

    @property
    def type_name(self) -> str:
        return f"{self.inner.type_name} or null"

    @property
    def expectation(self) -> str:
        return f"{self.inner.expectation} or null"

    @property
    def range(self) -> str:
        return self.inner.range

    @property
    def range_prefix(self) -> str:
        return self.inner.range_prefix

    @property
    def bounded(self) -> bool:
        return self.inner.bounded

    def from_text(self, text: str) -> Any:
        return None if text.strip() in ("null", "None") else self.inner.from_text(text)

    def from_json(self, value: Any) -> Any:
        return None if value is None else self.inner.from_json(value)

    def numbers(self, value: Any) -> Iterator[float]:
        return iter(()) if value is None else self.inner.numbers(value)


@dataclass(frozen=True)
class Either(Kind):
    """A word such as "auto", or else a value."""

    words: Choice
    value: Scalar

    @property
    def type_name(self) -> str:
        return f"{self.words.range} or {self.value.type_name}"

    @property
    def expectation(self) -> str:
        return f"{self.words.range}, or {self.value.expectation}"

    @property
    def bounded(self) -> bool:
        return self.value.bounded

    def from_text(self, text: str) -> Any:
        try:
            return self.words.from_text(text)
        except ValueError:
            return self.value.from_text(text)

    def from_json(self, value: Any) -> Any:
        try:
            return self.words.from_json(value)
        except ValueError:
            return self.value.from_json(value)

    def numbers(self, value: Any) -> Iterator[float]:
        return iter(()) if value in self.words.choices else self.value.numbers(value)


def resolve(annotation: Any) -> Kind:
    """The kind that a resolved annotation declares; TypeError names those that exist."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in _TYPE_NAMES:
        return Scalar(annotation)
    if origin is Literal and all(type(each) in _TYPE_NAMES for each in arguments):
        return Choice(arguments)
    if origin is list and arguments[0] in _TYPE_NAMES:
        return Array(Scalar(arguments[0]))
    if annotation is dict or origin is dict:
        return Document()
    if origin in (Union, types.UnionType):
        others = [each for each in arguments if each is not type(None)]
        if len(others) == 1 and len(arguments) == 2:
            return Nullable(resolve(others[0]))
        kinds = [resolve(each) for each in arguments]
        words = [kind for kind in kinds if isinstance(kind, Choice)]
        values = [kind for kind in kinds if isinstance(kind, Scalar) and kind.type is not str]
        if (len(words), len(values), len(kinds)) == (1, 1, 2):
            return Either(words[0], values[0])
    raise TypeError(
        f"{annotation!r} is no type of a hyperparameter: int, float, bool, str, Literal[...],"
        " list of int, float, bool or str, dict, Optional of one of these, or Literal[...] |"
        " a number"
    )


def unquote(text: str) -> str:
    """The string inside `text` when a client wrote it as a JSON string (TRAIN-42)."""
    stripped = text.strip()
    if len(stripped) >= 2 and stripped[0] == stripped[-1] == '"':
        try:
            return str(json.loads(stripped))
        except ValueError:
            return text
    return text


def show(value: Any) -> str:
    """A value as the documentation writes it: strings bare, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _literal(text: str) -> Any:
    """JSON, or the Python literal that `str(value)` of a client made of it."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    except RecursionError as error:
        raise ValueError(text) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes inside the client's text
            return ast.literal_eval(text)
    except (SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(text) from error
