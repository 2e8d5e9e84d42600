"""A small client of a running local SageMaker for the CLI: without botocore, it starts at once."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from byoa.container.errors import ByoaError

STATUS_PATH = "/_byoa/status"
INTERRUPT_PATH = "/_byoa/interrupt"
JSON = "application/json"
_TARGETS = {"sagemaker": "SageMaker", "logs": "Logs_20140328"}


class ServerError(ByoaError):
    """The server answered with an AWS error; `code` is AWS's."""


@dataclass(frozen=True)
class Client:
    """Calls one server; every call has a time limit and closes its connection."""

    url: str
    region: str

    @classmethod
    def find(cls, home: Path, region: str) -> Client:
        """The server that runs with `home`, else the one that AWS_ENDPOINT_URL names."""
        record = read_record(home)
        url = record["url"] if record else os.environ.get("AWS_ENDPOINT_URL")
        if not url:
            raise ByoaError(
                "SERVER_NOT_RUNNING",
                f"no local SageMaker runs with the state in {home}",
                remedy="start one with `byoa up --detach`, or name its state with --home",
            )
        return cls(url, region)

    def call(self, operation: str, service: str = "sagemaker", **members: Any) -> dict[str, Any]:
        """One JSON 1.1 operation; raises ServerError with AWS's code and message."""
        scope = f"Credential=byoa/20260101/{self.region}/{service}/aws4_request"
        status, body = self.request(
            "POST",
            "/",
            json.dumps(members).encode(),
            {
                "Content-Type": "application/x-amz-json-1.1",
                "X-Amz-Target": f"{_TARGETS[service]}.{operation}",
                "Authorization": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0",
            },
        )
        document: dict[str, Any] = json.loads(body) if body else {}
        if status >= 400:
            code = str(document.get("__type", "ServerError")).rpartition("#")[2]
            raise ServerError(code, document.get("message") or document.get("Message") or "")
        return document

    def pages(self, operation: str, key: str, **members: Any) -> list[dict[str, Any]]:
        """All entries of a List operation, newest last."""
        entries: list[dict[str, Any]] = []
        more: dict[str, str] = {}
        while True:
            page = self.call(operation, MaxResults=100, **members, **more)
            entries += page[key]
            if "NextToken" not in page:
                return entries
            more = {"NextToken": page["NextToken"]}

    def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(
            parts.hostname or "127.0.0.1", parts.port or 80, timeout=60.0
        )
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read()
        except OSError as error:
            raise ByoaError(
                "SERVER_UNREACHABLE",
                f"{self.url} does not answer: {error}",
                remedy="see whether it runs with `byoa status`; start it with `byoa up`",
            ) from None
        finally:
            connection.close()


def record_path(home: Path) -> Path:
    return home / "server.json"


def lock_path(home: Path) -> Path:
    return home / "server.lock"


def read_record(home: Path) -> dict[str, Any] | None:
    """Address and process of the server that runs with `home`; None when none does.

    The server holds the lock for as long as it lives, so a record that a killed one left behind
    is not believed, and its process number, which may be another's by now, is never used.
    """
    try:
        with lock_path(home).open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                record: dict[str, Any] = json.loads(record_path(home).read_text())
                return record
    except (FileNotFoundError, ValueError):
        pass
    return None
