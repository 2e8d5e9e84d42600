"""What the clients name as their image."""

from __future__ import annotations

import pytest


@pytest.fixture
def image(runner_kind: str, request: pytest.FixtureRequest) -> str:
    """byoa's own, of the test's runner."""
    if runner_kind == "process":
        return "byoa:latest"
    found: str = request.getfixturevalue("torch_free_image")
    return found
