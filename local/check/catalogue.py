"""All checks, in the order in which they run and are listed."""

from __future__ import annotations

import importlib

from byoa.local.check.checks import CHECKS, Check

MODULES = (
    "image_checks",
    "image_program_checks",
    "training_checks",
    "training_model_checks",
    "training_input_checks",
    "training_log_checks",
    "training_stop_checks",
    "training_hosts_checks",
    "processing_checks",
    "hosting_checks",
    "hosting_answer_checks",
    "hosting_request_checks",
    "hosting_session_checks",
    "hosting_load_checks",
    "hosting_place_checks",
    "hosting_end_checks",  # they leave no server behind
)


def all_checks() -> list[Check]:
    """Every check, those of an image first: they cost least and explain most."""
    names = [f"byoa.local.check.{name}" for name in MODULES]
    for name in names:
        importlib.import_module(name)
    # Whoever imported a module of checks before must not change the order.
    return sorted(CHECKS.values(), key=lambda each: names.index(each.run.__module__))
