"""The README's tables say what the code declares."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from byoa.algorithms import registry
from byoa.local.settings import Settings
from byoa.serve.settings import SETTINGS

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", registry.names())
def test_the_hyperparameters_of_each_algorithm_are_the_declared_ones(name: str) -> None:
    assert registry.find(name).Hyperparameters.markdown().strip() in README


def test_the_settings_are_the_declared_ones() -> None:
    for each in fields(Settings):
        row = f"| `BYOA_{each.name.upper()}` | {each.default} | {each.metadata['doc']} |"
        assert row in README


def test_the_server_s_settings_are_the_declared_ones() -> None:
    for each in SETTINGS:
        names = ", ".join(f"`{name}`" for name in each.variables)
        default = "" if each.default is None else each.default
        assert f"| {names} | {default} | {each.doc} |" in README
