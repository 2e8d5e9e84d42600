"""Settings of the local SageMaker: one table → environment, CLI flags, documentation.

Each has a variable `BYOA_<NAME>`; a CLI flag, where there is one, wins over the variable.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from byoa.container.errors import ByoaError

RUNNERS = ("auto", "process", "docker")


def _setting(default: Any, doc: str) -> Any:
    return field(default=default, metadata={"doc": doc})


@dataclass(frozen=True)
class Settings:
    """What the server is told; every field is documented by its `doc` metadata."""

    home: Path = _setting(Path("~/.byoa"), "state, buckets, logs and job directories")
    host: str = _setting("127.0.0.1", "address to listen on")
    port: int = _setting(4566, "port to listen on; 0 takes a free one")
    account: str = _setting("123456789012", "account id in ARNs and identities")
    region: str = _setting("us-east-1", "region of requests that name none")
    describe_hold: float = _setting(
        20.0, "seconds that a waiting client's Describe of a transient resource is held; 0: never"
    )
    invocation_timeout: float = _setting(60.0, "seconds that an endpoint may take to answer")
    stream_timeout: float = _setting(
        480.0, "seconds that an endpoint may take to stream an answer"
    )
    payload_limit: int = _setting(6_291_456, "bytes of a request or answer of InvokeEndpoint")
    stop_grace: float = _setting(120.0, "seconds from SIGTERM to SIGKILL of a training container")
    runner: str = _setting(
        "auto", "auto: containers run in Docker where the engine has the image, else as processes;"
        " docker or process: always so"
    )
    registry: str = _setting(
        "", "host:port of a registry that stands for ECR's: images that the engine lacks are"
        " pulled from it"
    )
    sandbox: str = _setting(
        "auto", "auto: containers have a private /opt/ml where the kernel allows it; off: never"
    )
    startup_window: float = _setting(480.0, "seconds that a model server has to pass /ping")

    @property
    def longest_invocation(self) -> float:
        """Seconds after which no request that an endpoint has taken is still waited for."""
        return max(self.invocation_timeout, self.stream_timeout)

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str] = os.environ, **overrides: Any
    ) -> Settings:
        """Defaults, then BYOA_… variables, then `overrides` that are not None."""
        values: dict[str, Any] = {}
        for each in fields(cls):
            text = environ.get(f"BYOA_{each.name.upper()}")
            if text is None:
                continue
            kind: Any = type(each.default)
            try:
                values[each.name] = kind(text)
            except ValueError:
                raise ByoaError(
                    "SETTING_INVALID",
                    f"BYOA_{each.name.upper()} is {text!r}",
                    expected=f"{kind.__name__}: {each.metadata['doc']}",
                ) from None
        values.update({name: value for name, value in overrides.items() if value is not None})
        settings = cls(**values)
        if settings.runner not in RUNNERS:
            raise ByoaError(
                "SETTING_INVALID",
                f"BYOA_RUNNER is {settings.runner!r}",
                expected=" or ".join(RUNNERS),
            )
        if not 0 <= settings.port <= 65535:
            raise ByoaError(
                "SETTING_INVALID",
                f"port {settings.port} does not exist",
                expected="0 (a free one) to 65535",
            )
        object.__setattr__(settings, "home", Path(settings.home).expanduser().absolute())
        return settings


@dataclass(frozen=True)
class Caller:
    """Account and region of a request, from its signature's credential scope."""

    account: str
    region: str

    def arn(self, kind: str, name: str) -> str:
        """`arn:aws:sagemaker:<region>:<account>:<kind>/<name>` (WIRE-08)."""
        return f"arn:aws:sagemaker:{self.region}:{self.account}:{kind}/{name}"
