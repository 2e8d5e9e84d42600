"""The local service's own settings."""

from __future__ import annotations

from pathlib import Path

from byoa.container import contract
from byoa.local.settings import Settings


def test_limits_are_the_service_s_where_nobody_sets_others(tmp_path: Path) -> None:
    """HOST-03, HOST-20, HOST-22, HOST-31, HOST-32: what the tests shorten."""
    settings = Settings(home=tmp_path)
    assert settings.startup_window == 8 * 60
    assert settings.invocation_timeout == 60
    assert settings.stream_timeout == 8 * 60
    assert settings.payload_limit == 6_291_456
    assert contract.PING_TIMEOUT_SECONDS == 2
    assert contract.HOSTING_STOP_GRACE_SECONDS == 30
