"""The engine that the checker talks to."""

from __future__ import annotations

from typing import Any

from byoa.container.errors import ByoaError


def connect() -> Any:
    """A docker.DockerClient; raises ByoaError DOCKER_UNAVAILABLE where no engine answers."""
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=120)
        client.ping()
    except DockerException as error:
        raise ByoaError(
            "DOCKER_UNAVAILABLE", f"no Docker engine answers: {error}",
            remedy="start Docker, set DOCKER_HOST, or check an algorithm without it:"
            " byoa check --process ALGORITHM",
        ) from None
    return client
