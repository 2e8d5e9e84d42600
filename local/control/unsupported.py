"""Refusal of request members that are not run here, each with the nearest that is.

A table maps a member's path to the reason; nothing is accepted and then ignored. Members that only
choose cloud hardware or permissions (instance types, volumes, keys, roles, VPCs) are kept and
described: on one machine they have nothing to act on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from byoa.local.errors import ValidationException

# Member → what to do instead.
Refusals = Mapping[str, str]


def refused(document: Mapping[str, Any], table: Refusals, where: str = "") -> list[str]:
    """A sentence for each member of `document` that `table` refuses. A member that is absent,
    False or an empty list asks for nothing."""
    return [
        f"{where}{name} is not supported here; {instead}."
        for name, instead in table.items()
        if document.get(name) not in (None, False, [], "")
    ]


def raise_all(problems: Iterable[str]) -> None:
    """All problems of a request in one ValidationException; nothing when there is none."""
    text = " ".join(problems)
    if text:
        raise ValidationException(text)
