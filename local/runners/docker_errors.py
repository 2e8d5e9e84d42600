"""What goes wrong between us and the engine, as our errors: it is gone, or it refuses."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import docker.errors
import urllib3.exceptions

from byoa.container.errors import ByoaError
from byoa.local.runners.engine import EngineUnavailable

# What the SDK raises, its own and what it lets through; the errors of `requests` are OSErrors.
BROKEN = (docker.errors.DockerException, urllib3.exceptions.HTTPError, OSError)


@contextlib.contextmanager
def answers(doing: str) -> Iterator[None]:
    """Turn what the SDK raises into our errors; `doing` says what the engine was asked for."""
    try:
        yield
    except docker.errors.APIError as error:
        raise ByoaError(
            "DOCKER_REFUSED", f"the container engine refuses {doing}: {explanation(error)}"
        ) from error
    except BROKEN as error:
        raise EngineUnavailable(
            f"the container engine does not answer ({doing}): {error}"
        ) from error


def explanation(error: docker.errors.APIError) -> str:
    """What the engine said."""
    text: Any = error.explanation
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return str(text or error).strip()


def status(error: docker.errors.APIError) -> int:
    """The HTTP status of the engine's answer; 0 where there was none."""
    return 0 if error.response is None else int(error.response.status_code)
