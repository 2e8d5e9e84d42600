"""Refusal of request members that are not run here, each with the nearest that is.

A table maps a member's path to the reason; nothing is accepted and then ignored. Members that only
choose cloud hardware or permissions (instance types, volumes, keys, roles, VPCs) are kept and
described: on one machine they have nothing to act on. The log of what was asked for with such a
member, but for those that every request has, begins with a line that names it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from byoa.local.errors import ValidationException

# Member → what to do instead.
Refusals = Mapping[str, str]


_NOTHING: tuple[Any, ...] = (None, False, [], "", {})


def refused(document: Mapping[str, Any], table: Refusals, where: str = "") -> list[str]:
    """A sentence for each member of `document` that `table` refuses. A member that is absent,
    False or empty asks for nothing."""
    return [
        f"{where}{name} is not supported here; {instead}."
        for name, instead in table.items()
        if document.get(name) not in _NOTHING
    ]


def without_effect(document: Mapping[str, Any], members: Iterable[str]) -> list[str]:
    """Those of `members`, as `Member.Member`, that `document` has and nothing here acts on."""
    found = []
    for name in members:
        value: Any = document
        for part in name.split("."):
            value = (value or {}).get(part)
        if value not in _NOTHING:
            found.append(name)
    return found


def effect_note(names: Iterable[str]) -> str | None:
    """What to say of members that are without effect; None where there is none."""
    text = ", ".join(dict.fromkeys(names))
    return f"without effect on this machine, only kept and described: {text}" if text else None


def raise_all(problems: Iterable[str]) -> None:
    """All problems of a request in one ValidationException; nothing when there is none."""
    text = " ".join(problems)
    if text:
        raise ValidationException(text)
