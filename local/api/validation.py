"""Check a request against its input shape as the service does: every error in one message.

Texts and member paths are AWS's (WIRE-06, WIRE-07); `validate` returns the request that operations
see: without nulls and unknown members, timestamps as epoch seconds.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from byoa.local.api.service_model import nearest
from byoa.local.errors import AwsError, ValidationException

if TYPE_CHECKING:
    from botocore.model import Shape

SHOWN_CHARACTERS = 256  # of a refused value; AWS shows it whole, however long
_LOCAL_MODE_NAMES = ("local", "local_gpu")

__all__ = ["Validated", "validate"]


@dataclass
class Validated:
    """A request that satisfies its shape. `unknown` are paths of members that were left out."""

    request: dict[str, Any]
    unknown: list[str] = field(default_factory=list)


def validate(shape: Shape | None, request: Any) -> Validated:
    """Check `request` against `shape`; None is an operation without input.

    Raises AwsError SerializationException for JSON of a wrong type, otherwise ValidationException
    with all the constraints that are not met.
    """
    check = _Check()
    clean = check.structure(shape, request, "") if shape is not None else {}
    if check.types:
        raise AwsError("SerializationException", "; ".join(check.types))
    if check.errors:
        count = len(check.errors)
        noun = "error" if count == 1 else "errors"
        raise ValidationException(
            f"{count} validation {noun} detected: " + "; ".join(check.errors)
        )
    return Validated(clean or {}, check.unknown)


class _Check:
    def __init__(self) -> None:
        self.types: list[str] = []
        self.errors: list[str] = []
        self.unknown: list[str] = []

    def value(self, shape: Shape, value: Any, path: str) -> Any:
        kind = shape.type_name
        if kind == "structure":
            return self.structure(shape, value, path)
        if kind == "list":
            return self._list(shape, value, path)
        if kind == "map":
            return self._map(shape, value, path)
        return self._scalar(shape, value, path)

    def structure(self, shape: Any, value: Any, path: str) -> dict[str, Any] | None:
        if not isinstance(value, Mapping):
            self._wrong_type(value, "a structure", path)
            return None
        clean: dict[str, Any] = {}
        for name, member in shape.members.items():
            given = value.get(name)
            where = _join(path, _camel(name))
            if given is None:
                if name in shape.required_members:
                    self.errors.append(
                        f"Value null at '{where}' failed to satisfy constraint: "
                        "Member must not be null"
                    )
                continue
            clean[name] = self.value(member, given, where)
        self.unknown += [
            _join(path, str(name)) for name in value if name not in shape.members
        ]
        if shape.is_tagged_union and len(clean) != 1:
            options = ", ".join(_camel(name) for name in shape.members)
            self.errors.append(
                f"Value at '{path}' failed to satisfy constraint: "
                f"Member must have exactly one member set of: [{options}]"
            )
        return clean

    def _list(self, shape: Any, value: Any, path: str) -> list[Any] | None:
        if not isinstance(value, list):
            self._wrong_type(value, "a list", path)
            return None
        self._size(shape, len(value), value, path)
        return [
            self.value(shape.member, item, f"{path}.{index}.member")
            for index, item in enumerate(value, start=1)
            if item is not None or self._null(f"{path}.{index}.member")
        ]

    def _map(self, shape: Any, value: Any, path: str) -> dict[str, Any] | None:
        if not isinstance(value, Mapping):
            self._wrong_type(value, "a map", path)
            return None
        self._size(shape, len(value), value, path)
        clean: dict[str, Any] = {}
        for key, item in value.items():
            broken = _constraints(shape.key, key)
            if broken:
                self._constraint(key, path, f"Map keys must satisfy constraint: [{broken[0]}]")
            where = f"{path}.{key}.member"
            if item is None:
                self._null(where)
            elif shape.value.type_name == "string" and isinstance(item, str):
                # The service shows the whole map here; naming the entry is of more use.
                broken = _constraints(shape.value, item)
                if broken:
                    listed = ", ".join(broken)
                    self._constraint(
                        item, where, f"Map value must satisfy constraint: [{listed}]"
                    )
                clean[key] = item
            else:
                clean[key] = self.value(shape.value, item, where)
        return clean

    def _scalar(self, shape: Any, value: Any, path: str) -> Any:
        converted, expected = _convert(shape, value)
        if expected is not None:
            self._wrong_type(value, expected, path)
            return None
        for text in _constraints(shape, converted):
            self._constraint(value, path, text, sensitive=bool(shape.metadata.get("sensitive")))
        return converted

    def _size(self, shape: Any, size: int, value: Any, path: str) -> None:
        for text in _bounds(shape, size, "length"):
            self._constraint(value, path, text)

    def _null(self, path: str) -> bool:
        self._constraint(None, path, "Member must not be null")
        return False

    def _constraint(self, value: Any, path: str, text: str, *, sensitive: bool = False) -> None:
        shown = "Value null" if value is None else f"Value '{_shown(value)}'"
        if sensitive:
            shown = "Value"
        self.errors.append(f"{shown} at '{path}' failed to satisfy constraint: {text}")

    def _wrong_type(self, value: Any, expected: str, path: str) -> None:
        self.types.append(
            f"{_json_kind(value)} can not be converted to {expected}"
            + (f" at '{path}'" if path else "")
        )


def _convert(shape: Any, value: Any) -> tuple[Any, str | None]:
    """The value in Python's type, or what was expected instead."""
    kind = shape.type_name
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind in ("string", "char"):
        return (value, None) if isinstance(value, str) else (None, "a String")
    if kind == "boolean":
        return (value, None) if isinstance(value, bool) else (None, "a Boolean")
    if kind in ("integer", "long"):
        if number and math.isfinite(value) and float(value).is_integer():
            return int(value), None
        return None, "an Integer" if kind == "integer" else "a Long"
    if kind in ("float", "double"):
        return (value, None) if number else (None, "a Double")
    if kind == "timestamp":
        return _timestamp(value) if isinstance(value, str) or number else (None, "a Timestamp")
    if kind == "blob":
        try:
            return base64.b64decode(value, validate=True), None
        except (TypeError, ValueError, binascii.Error):
            return None, "a Blob (base64)"
    return value, None


def _timestamp(value: str | float) -> tuple[float | None, str | None]:
    """Epoch seconds; ISO 8601 text is tolerated, as some clients send it (WIRE-03)."""
    from botocore.utils import parse_timestamp

    try:
        return float(value), None
    except ValueError:
        text = str(value)
    try:
        return float(parse_timestamp(text).timestamp()), None
    except (ValueError, OverflowError):
        return None, "a Timestamp"


def _constraints(shape: Any, value: Any) -> list[str]:
    """The constraints of a scalar's shape that `value` does not meet, in AWS's words."""
    kind = shape.type_name
    if kind in ("integer", "long", "float", "double"):
        return _bounds(shape, value, "value")
    if kind == "blob":
        return _bounds(shape, len(value), "length")
    if kind != "string":
        return []
    allowed = shape.metadata.get("enum") or ()
    if allowed:
        return [] if value in allowed else [_enum_text(value, allowed)]
    broken = _bounds(shape, len(value), "length")
    pattern = shape.metadata.get("pattern")
    if pattern and _pattern(pattern).fullmatch(value) is None:
        broken.append(f"Member must satisfy regular expression pattern: {pattern}")
    return broken


def _bounds(shape: Any, measure: float, noun: str) -> list[str]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    broken = []
    if high is not None and measure > high:
        broken.append(f"Member must have {noun} less than or equal to {high}")
    if low is not None and measure < low:
        broken.append(f"Member must have {noun} greater than or equal to {low}")
    return broken


def _enum_text(value: str, allowed: Any) -> str:
    text = f"Member must satisfy enum value set: [{', '.join(allowed)}]"
    if value in _LOCAL_MODE_NAMES and any(each.startswith("ml.") for each in allowed):
        usual = next((each for each in allowed if each == "ml.m5.large"), allowed[0])
        return (
            f"{text} ('{value}' is the name of the SageMaker Python SDK's own local mode, "
            f"which no service knows: use an instance type such as {usual})"
        )
    # Instance types differ from API to API: ml.t2 hosts, ml.t3 trains (HW-05).
    close = nearest(value, allowed)
    return f"{text} (nearest: {', '.join(close)})" if close else text


@cache
def _pattern(pattern: str) -> Any:
    """The compiled pattern, through `regex`: eighteen of SageMaker's use \\p{…} classes.

    Two kinds are Java's only and rewritten: surrogate pairs for the planes above U+FFFF, and a
    quantifier behind the end anchor, which says nothing.
    """
    import regex

    rewritten = pattern.replace(
        r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF"
    )
    if "${" in rewritten:
        rewritten = rewritten[: rewritten.index("${")]
    return regex.compile(rewritten)


def _camel(name: str) -> str:
    return name[:1].lower() + name[1:]


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"


def _json_kind(value: Any) -> str:
    if value is None:
        return "NULL_VALUE"
    if isinstance(value, bool):
        return "TRUE_VALUE" if value else "FALSE_VALUE"
    if isinstance(value, (int, float)):
        return "NUMBER_VALUE"
    if isinstance(value, str):
        return "STRING_VALUE"
    return "START_ARRAY" if isinstance(value, list) else "START_OBJECT"
