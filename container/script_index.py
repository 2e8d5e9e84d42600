"""Which package index pip will ask, and whether it answers: found out in seconds, before pip tries
for minutes (TRAP-52). CodeArtifact's is asked for where CA_REPOSITORY_ARN names one (TK-12).
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from byoa.container.errors import AlgorithmError

CODEARTIFACT_VARIABLE = "CA_REPOSITORY_ARN"
PIP_SECONDS = 60.0  # for pip to tell its settings
CONNECT_SECONDS = 5.0  # to one address
PROBE_SECONDS = 10.0  # to all of an index's, its name's resolution included
_PORTS = {"http": 80, "https": 443}
# What pip has made of its options, variables and files, in the form that they have as options.
_ASK = """
import json
from pip._internal.commands import create_command
options, _ = create_command("install").parse_args([])
print(json.dumps({"urls": [options.index_url, *options.extra_index_urls],
                  "offline": options.no_index, "proxy": options.proxy}))
"""
_OPTION = re.compile(
    r"^\s*(?P<name>-i|--index-url|--extra-index-url|--no-index)(?:[\s=]+(?P<value>\S+))?"
)
_ARN = re.compile(
    r"arn:[^:]+:codeartifact:(?P<region>[^:]+):(?P<account>[^:]+)"
    r":repository/(?P<domain>[^/]+)/(?P<repository>.+)"
)


@dataclass(frozen=True)
class Index:
    """What pip has to take packages from. `offline`: it is told, in its own settings or in the
    requirements, to use no index; `unreachable`: why none can be reached, None where one can or
    nobody can tell."""

    offline: bool = False
    unreachable: str | None = None


def look(python: str, requirements: Path, environ: Mapping[str, str]) -> Index:
    """Ask pip for its settings, and try the indexes that they name."""
    settings = _settings(python, environ)
    if settings is None:
        return Index()
    urls = _urls(requirements, settings)
    if not urls:
        return Index(offline=True)
    reasons = []
    for url in urls:
        reason = _probe(url, settings.get("proxy") or "", environ)
        if reason is None:
            return Index()
        reasons.append(reason)
    return Index(unreachable="; ".join(reasons))


def _settings(python: str, environ: Mapping[str, str]) -> dict[str, Any] | None:
    try:
        asked = subprocess.run(  # noqa: S603 - an argv of our own
            [python, "-c", _ASK], env=dict(environ), stdin=subprocess.DEVNULL,
            capture_output=True, timeout=PIP_SECONDS, check=True,
        )
        answer: dict[str, Any] = json.loads(asked.stdout)
        return answer
    except (OSError, ValueError, subprocess.SubprocessError):  # pip itself will tell what is wrong
        return None


def _urls(requirements: Path, settings: Mapping[str, Any]) -> list[str]:
    """The indexes, as the requirements' own options leave them."""
    if settings["offline"]:
        return []
    urls = [url for url in settings["urls"] if url]
    if requirements.is_file():
        for line in requirements.read_text(encoding="utf-8", errors="replace").splitlines():
            match = _OPTION.match(line)
            if match is None:
                continue
            if match["name"] == "--no-index":
                return []
            if match["value"]:
                urls = [*(urls if match["name"] == "--extra-index-url" else ()), match["value"]]
    return urls


def _probe(url: str, proxy: str, environ: Mapping[str, str]) -> str | None:
    """Why `url`, or the proxy before it, cannot be connected to; None when it can."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        return None  # a directory
    # What pip has is `HOST:PORT` as well as a URL.
    through = proxy or _proxy(parts.scheme, parts.hostname, environ)
    target = urlsplit(through if "://" in through else f"http://{through}") if through else parts
    address = target.hostname or "", _port(target)
    found: list[str] = []
    done = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection(address, CONNECT_SECONDS).close()
        except OSError as error:
            found.append(str(error))
        done.set()

    # A resolver without a network may take longer than anybody wants to wait for.
    threading.Thread(target=connect, name="index-probe", daemon=True).start()
    if not done.wait(PROBE_SECONDS):
        found.append(f"no answer within {PROBE_SECONDS:g} s")
    return f"{address[0]}:{address[1]}: {found[0]}" if found else None


def _port(parts: Any) -> int:
    return int(parts.port or _PORTS.get(parts.scheme, 80))


def _proxy(scheme: str, host: str, environ: Mapping[str, str]) -> str:
    found = environ.get(f"{scheme}_proxy") or environ.get(f"{scheme}_proxy".upper()) or ""
    without = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if found and without:
        from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

        if proxy_bypass_environment(host, {"no": without}):
            return ""
    return found


# --- CodeArtifact ---------------------------------------------------------------------------------


def codeartifact(environ: Mapping[str, str]) -> dict[str, str]:
    """pip's variables for the repository that CA_REPOSITORY_ARN names, with a token of the role's.

    In a variable, which pip doesn't print, and not in an argument, which everybody can read.
    """
    arn = environ[CODEARTIFACT_VARIABLE]
    match = _ARN.fullmatch(arn)
    if match is None:
        raise _no_codeartifact(f"{arn!r} is no ARN of a repository")
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "codeartifact", region_name=match["region"],
        config=Config(connect_timeout=PROBE_SECONDS, retries={"total_max_attempts": 2}),
    )
    try:
        who = {"domain": match["domain"], "domainOwner": match["account"]}
        token = client.get_authorization_token(**who)["authorizationToken"]
        endpoint = client.get_repository_endpoint(
            **who, repository=match["repository"], format="pypi"
        )["repositoryEndpoint"]
    except (BotoCoreError, ClientError) as error:
        raise _no_codeartifact(f"{arn}: {error}") from None
    finally:
        client.close()
    scheme, _, place = endpoint.partition("://")
    return {"PIP_INDEX_URL": f"{scheme}://aws:{token}@{place.rstrip('/')}/simple/"}


def _no_codeartifact(what: str) -> AlgorithmError:
    return AlgorithmError(
        "CODEARTIFACT_UNAVAILABLE", what, where=CODEARTIFACT_VARIABLE,
        expected="arn:aws:codeartifact:REGION:ACCOUNT:repository/DOMAIN/REPOSITORY, which the"
        " job's role may read",
        remedy="correct or remove the variable; or put the wheels into the source's `wheelhouse`",
    )
