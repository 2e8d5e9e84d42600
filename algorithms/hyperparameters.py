"""Hyperparameters declared once: type, range, default and doc.

Parsing of SageMaker's strings, validation (all errors at once) and the documentation table follow
from the declaration:

    class Hyperparameters(Algorithm.Hyperparameters):
        epochs: int = param(10, doc="passes over the data", min=1, max=1000)
        metric: Literal["l2", "cosine"] = param("l2", doc="distance")
"""

from __future__ import annotations

import copy
import difflib
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, TypeVar, cast, get_origin, overload

from byoa.algorithms.kinds import Kind, resolve, show, unquote
from byoa.container.errors import HyperparameterError

T = TypeVar("T")
Self = TypeVar("Self", bound="Hyperparameters")

_REQUIRED: Any = object()
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Param:
    """What `param` declares."""

    default: Any
    doc: str
    min: float | None
    max: float | None


@overload
def param(default: T, *, doc: str, min: float | None = None, max: float | None = None) -> T: ...
@overload
def param(*, doc: str, min: float | None = None, max: float | None = None) -> Any: ...
def param(
    default: Any = _REQUIRED, *, doc: str, min: float | None = None, max: float | None = None
) -> Any:
    """Declare a hyperparameter; required where no default is given.

    `min` and `max` are inclusive and hold for each item of a list. The choices of a Literal are
    its range.
    """
    return Param(default, doc, min, max)


@dataclass(frozen=True)
class Field:
    """A declared hyperparameter with its type resolved."""

    name: str
    kind: Kind
    param: Param

    @property
    def required(self) -> bool:
        return self.param.default is _REQUIRED

    @property
    def default(self) -> Any:
        """A fresh copy, so that no two instances share a list."""
        return copy.deepcopy(self.param.default)

    @property
    def range(self) -> str:
        """ "1 to 1000", "at least 0", or nothing."""
        low, high = self.param.min, self.param.max
        if low is None and high is None:
            return ""
        if low is not None and high is not None:
            return f"{self.kind.range_prefix}{_plain(low)} to {_plain(high)}"
        if low is not None:
            return f"{self.kind.range_prefix}at least {_plain(low)}"
        return f"{self.kind.range_prefix}at most {_plain(cast(float, high))}"

    @property
    def expectation(self) -> str:
        """For an error: "an integer, 1 to 1000"."""
        return f"{self.kind.expectation}, {self.range}" if self.range else self.kind.expectation

    def from_text(self, text: str) -> Any:
        return self._within(self.kind.from_text(unquote(text)))

    def from_json(self, value: Any) -> Any:
        return self._within(self.kind.from_json(value))

    def _within(self, value: Any) -> Any:
        low, high = self.param.min, self.param.max
        for number in self.kind.numbers(value):
            if (low is not None and number < low) or (high is not None and number > high):
                raise ValueError(value)
        return value


class Row(NamedTuple):
    """One line of the documentation table."""

    name: str
    type: str
    default: str
    range: str
    doc: str


class Hyperparameters:
    """The hyperparameters of one training: attributes that cannot be changed."""

    _reserved_prefix: ClassVar[str] = "sagemaker_"  # TRAIN-45
    _reserved: ClassVar[tuple[str, ...]] = (
        "_tuning_objective_metric",  # TRAIN-44
        "default_user_module_name",
    )
    _fields: ClassVar[Mapping[str, Field]]

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        for name, declared in vars(cls).items():
            if not isinstance(declared, Param):
                continue
            if hasattr(Hyperparameters, name):  # it would hide a method such as parse
                raise TypeError(f"{cls.__qualname__}.{name}: the name is taken")
            if name.startswith(cls._reserved_prefix) or name in cls._reserved:
                raise TypeError(f"{cls.__qualname__}.{name}: SageMaker reserves the name")

    def __init__(self, **values: Any) -> None:
        """Values with their Python types; what is left out takes its default."""
        vars(self).update(_read(type(self), values, Field.from_json))

    @classmethod
    def parse(cls: type[Self], raw: Mapping[str, str]) -> Self:
        """Read SageMaker's strings (TRAIN-40 … TRAIN-45).

        Raises one HyperparameterError that lists everything wrong: out of range, of another
        type, missing, unknown. Keys that the platform reserves are passed over.
        """
        given = {
            name: text
            for name, text in raw.items()
            if not name.startswith(cls._reserved_prefix) and name not in cls._reserved
        }
        return cls._of(_read(cls, given, Field.from_text))

    @classmethod
    def from_json(cls: type[Self], document: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave."""
        return cls._of(_read(cls, document, Field.from_json))

    @classmethod
    def _of(cls: type[Self], values: Mapping[str, Any]) -> Self:
        made = cls.__new__(cls)
        vars(made).update(values)
        return made

    def to_json(self) -> dict[str, Any]:
        """The values by name, as JSON can carry them."""
        return {name: copy.deepcopy(vars(self)[name]) for name in self.fields()}

    @classmethod
    def fields(cls) -> Mapping[str, Field]:
        """The declarations by name, those of base classes first.

        Raises TypeError for a declaration that makes no sense: the author's error, not a user's.
        """
        if "_fields" not in vars(cls):  # not inherited: each class has its own
            cls._fields = _resolve(cls)
        return cls._fields

    @classmethod
    def table(cls) -> list[Row]:
        """The documentation: a row for each hyperparameter, in the order of declaration."""
        return [
            Row(
                field.name,
                field.kind.type_name,
                "required" if field.required else show(field.default),
                field.range or field.kind.range,
                field.param.doc,
            )
            for field in cls.fields().values()
        ]

    @classmethod
    def markdown(cls) -> str:
        """`table` as Markdown."""
        rows = [Row("Hyperparameter", "Type", "Default", "Range", "Meaning")]
        rows.append(Row("---", "---", "---", "---", "---"))
        rows += [row._replace(name=f"`{row.name}`") for row in cls.table()]
        return "".join(
            f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in rows
        )

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{name}: hyperparameters are read-only; keep state on the algorithm")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__qualname__}({values})"


def _resolve(cls: type[Hyperparameters]) -> Mapping[str, Field]:
    try:
        # Annotations may be strings: they are resolved in the module where the class is written.
        hints = typing.get_type_hints(cls)
    except NameError as error:
        raise TypeError(
            f"{cls.__qualname__}: an annotation names {error.name!r}, which module"
            f" {cls.__module__} does not define at its top level"
        ) from None
    fields: dict[str, Field] = {}
    for name, annotation in hints.items():
        if name.startswith("_") or get_origin(annotation) is ClassVar:
            continue
        declared = getattr(cls, name, None)
        if not isinstance(declared, Param):
            raise TypeError(f"{cls.__qualname__}.{name}: declare it as param(default, doc=...)")
        fields[name] = _field(cls, name, annotation, declared)
    for name in dir(cls):
        if isinstance(getattr(cls, name, None), Param) and name not in fields:
            raise TypeError(f"{cls.__qualname__}.{name}: declare its type, and no leading _")
    return MappingProxyType(fields)


def _field(cls: type[Hyperparameters], name: str, annotation: Any, declared: Param) -> Field:
    place = f"{cls.__qualname__}.{name}"
    try:
        kind = resolve(annotation)
    except TypeError as error:
        raise TypeError(f"{place}: {error}") from None
    if not kind.bounded and (declared.min is not None or declared.max is not None):
        raise TypeError(f"{place}: min and max need a number or a list of numbers")
    field = Field(name, kind, declared)
    if field.required:
        return field
    try:
        field.from_json(field.default)
    except ValueError:
        raise TypeError(
            f"{place}: the default {declared.default!r} is not {field.expectation}"
        ) from None
    return field


def _read(
    cls: type[Hyperparameters], given: Mapping[str, Any], read: Callable[[Field, Any], Any]
) -> dict[str, Any]:
    """Every declared value, read or default; one error for all that is wrong."""
    fields = cls.fields()
    values: dict[str, Any] = {}
    wrong: list[str] = []
    for name, field in fields.items():
        if name not in given:
            if field.required:
                wrong.append(f"{name} is missing: expected {field.expectation}")
            else:
                values[name] = field.default
            continue
        try:
            values[name] = read(field, given[name])
        except ValueError:
            wrong.append(f"{name} = {_shown(given[name])}: expected {field.expectation}")
    unknown = [name for name in given if name not in fields]
    wrong += [_unknown(name, fields) for name in unknown]
    if wrong:
        count = "1 hyperparameter is" if len(wrong) == 1 else f"{len(wrong)} hyperparameters are"
        raise HyperparameterError(
            "HYPERPARAMETER_INVALID",
            f"{count} wrong: {'; '.join(wrong)}",
            remedy=f"known names: {', '.join(fields) or 'none'}" if unknown else None,
        )
    return values


def _unknown(name: str, fields: Mapping[str, Field]) -> str:
    near = difflib.get_close_matches(name, fields, n=1)
    return f"{name}: no such hyperparameter" + (f"; did you mean {near[0]}?" if near else "")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _plain(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"
