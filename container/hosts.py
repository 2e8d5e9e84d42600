"""The other hosts of a job: wait until the name of each resolves, with a limit.

Hosts start at different times, and a name exists only once its host does (TRAIN-65, CHK-13).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from byoa.container.contract import ResourceConfig
from byoa.container.errors import ContractError

WAIT_SECONDS = 900.0  # what SageMaker's training toolkit allows
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
TELL_SECONDS = 30.0  # between two lines that say who is missing


def wait_for_hosts(
    resources: ResourceConfig,
    *,
    timeout: float = WAIT_SECONDS,
    stopping: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda text: print(text, flush=True),
) -> None:
    """Return when the names of all hosts resolve, or `stopping` says so; a single host has nobody
    to wait for. Raises ContractError HOST_UNRESOLVED after `timeout` seconds."""
    if len(resources.hosts) == 1:
        return
    started = time.monotonic()
    missing, errors = _unresolved(resources.hosts)
    if not missing:
        return
    pause, told = FIRST_PAUSE_SECONDS, started
    say(f"waiting for {_names(missing)} to resolve")
    while missing and not stopping():
        now = time.monotonic()
        if now - started >= timeout:
            raise ContractError(
                "HOST_UNRESOLVED",
                f"{_names(missing)} did not resolve within {timeout:g} s: {errors}",
                expected="the platform makes every host of the job resolvable",
                remedy="see in the log streams of these hosts whether they have started",
            )
        if now - told >= TELL_SECONDS:
            told = now
            say(f"still waiting for {_names(missing)} to resolve, {now - started:.0f} s so far")
        _sleep(min(pause, timeout - (now - started)), stopping)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        missing, errors = _unresolved(missing)
    if not missing:
        say(f"all {len(resources.hosts)} hosts resolve after {time.monotonic() - started:.1f} s")


def _unresolved(hosts: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """The names that do not resolve now, and the resolver's last word."""
    missing, error = [], ""
    for host in hosts:
        try:
            socket.getaddrinfo(host, None)
        except OSError as reason:
            missing.append(host)
            error = str(reason)
    return tuple(missing), error


def _names(hosts: tuple[str, ...]) -> str:
    return f"the name{'s' if len(hosts) > 1 else ''} {', '.join(hosts)}"


def _sleep(seconds: float, stopping: Callable[[], bool]) -> None:
    """Sleep, but see within a tenth of a second that the job is to stop."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and not stopping():
        time.sleep(min(left, 0.1))
