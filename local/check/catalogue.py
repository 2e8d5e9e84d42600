"""All checks, in the order in which they run and are listed."""

from __future__ import annotations

import importlib

from byoa.local.check.checks import CHECKS, Check

MODULES = (
    "image_checks",
    "image_program_checks",
)


def all_checks() -> list[Check]:
    """Every check, those of an image first: they cost least and explain most."""
    for name in MODULES:
        importlib.import_module(f"byoa.local.check.{name}")
    return list(CHECKS.values())
