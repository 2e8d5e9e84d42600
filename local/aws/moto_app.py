"""moto as a WSGI application within this process: the AWS services that byoa does not run itself.

It is imported on first use (0.3 s, 50 MB), works offline, patches no client of this process and
keeps everything in memory. Its S3 is never used.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from byoa.local.aws.errors import error_response
from byoa.local.errors import AwsError

if TYPE_CHECKING:
    from byoa.local.api.http import Request, Response

log = logging.getLogger(__name__)

MOTO_ACCOUNT = "123456789012"  # moto's default, which stands for "not known"
_LONG_POLLS = frozenset({"sqs"})  # its ReceiveMessage waits 20 s: it may not hold the lock
# Signing names whose data is another backend's.
_SHARED = {"monitoring": "cloudwatch", "sts": "iam"}

__all__ = ["MOTO_ACCOUNT", "Moto"]


@cache
def _application() -> Any:
    # Regions that moto has no list of are as good as others; this is its own switch for it.
    os.environ.setdefault("MOTO_ALLOW_NONEXISTENT_REGION", "true")
    import moto.settings

    # Its default lets any web page of the user's browser read and write here.
    moto.settings.DISABLE_GLOBAL_CORS = True
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    return DomainDispatcherApplication(create_backend_app)


def _backends(service: str) -> Any:
    """moto's backends of a service, by account and region; its types list every service."""
    return import_module("moto.backends").get_backend(service)


class Moto:
    """The embedded moto; `lock` guards direct use of a service's backend."""

    def __init__(self, account: str) -> None:
        self.account = account
        self._load = threading.Lock()
        self._locks: dict[str, AbstractContextManager[Any]] = {}

    def warm(self) -> None:
        """Import what every client needs first, so that its first call does not wait for it."""
        with self._load:
            _application()
            for service in ("sts", "iam", "logs", "cloudwatch"):
                _backends(service)

    def backend(self, service: str, region: str, *, account: str = "") -> Any:
        """moto's own backend object of a regional service; use it under `lock(service)`."""
        with self._load:
            _application()
            return _backends(service)[account or self.account][region]

    def lock(self, service: str) -> AbstractContextManager[Any]:
        """moto's collections are plain dicts and lists: one caller of a service at a time."""
        if service in _LONG_POLLS:
            return nullcontext()
        with self._load:
            return self._locks.setdefault(_SHARED.get(service, service), threading.RLock())

    def handle(self, request: Request, service: str, body: bytes) -> Response:
        """moto's answer; what it does not do is an AWS error that names the operation."""
        from byoa.local.api.http import Response

        with self._load:
            application = _application()
        answer: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> Any:
            answer[:] = [int(status.split(" ", 1)[0]), headers]
            return answer.append

        environ = self._environ(request, body)
        if application.infer_service_region_host(environ, environ["PATH_INFO"]) is None:
            # moto would take it for its own S3, which is not ours.
            return error_response(request, _unknown_service(request))
        try:
            with self.lock(service):
                chunks = application(environ, start_response)
                try:
                    content = b"".join(chunks)
                finally:
                    if hasattr(chunks, "close"):
                        chunks.close()
        except NotImplementedError as error:
            return error_response(request, _not_implemented(request, service, error))
        except Exception as error:
            log.exception("moto failed: %s %s", service, request.target)
            return error_response(
                request,
                AwsError(
                    "InternalFailure",
                    f"{service}: {type(error).__name__}: {error}",
                    status=500,
                ),
            )
        status, headers = answer[:2]
        dropped = {"content-length", "connection", "transfer-encoding", "status"}
        kept = [(name, value) for name, value in headers if name.lower() not in dropped]
        if request.method == "HEAD":
            kept += [(n, v) for n, v in headers if n.lower() == "content-length"]
        return Response(status=status, headers=kept, body=content)

    def _environ(self, request: Request, body: bytes) -> dict[str, Any]:
        host, _, port = request.host.partition(":")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": request.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(request.path).decode("latin-1"),
            "QUERY_STRING": request.query,
            "RAW_URI": request.path + (f"?{request.query}" if request.query else ""),
            "SERVER_NAME": host or "localhost",
            "SERVER_PORT": port or ("443" if request.secure else "80"),
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": str(request.client[0]),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "https" if request.secure else "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        for name, value in request.headers.items():
            if "_" not in name and name != "transfer-encoding":
                environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
        environ["HTTP_HOST"] = request.host
        environ["CONTENT_TYPE"] = environ.pop("HTTP_CONTENT_TYPE", "")
        environ.pop("HTTP_CONTENT_LENGTH", None)
        environ["CONTENT_LENGTH"] = str(len(body))
        if (account := self.account_of(request)) != MOTO_ACCOUNT:
            environ["HTTP_X_MOTO_ACCOUNT_ID"] = account
        else:
            environ.pop("HTTP_X_MOTO_ACCOUNT_ID", None)
        return environ

    def account_of(self, request: Request) -> str:
        """The account of the access key, if moto gave it out (AssumeRole); otherwise ours."""
        from moto.iam.models import get_account_id_from

        key = access_key(request)
        known = str(get_account_id_from(key)) if key else MOTO_ACCOUNT
        return self.account if known == MOTO_ACCOUNT else known


def access_key(request: Request) -> str:
    """The access key id that signed the request; empty when none did."""
    authorization = request.headers.get("authorization") or ""
    _, _, scope = authorization.partition("Credential=")
    return scope.split("/", 1)[0].strip()


def _unknown_service(request: Request) -> AwsError:
    return AwsError(
        "InvalidAction",
        f"{request.method} {request.path[:200]} at {request.host}: the request is not signed and "
        "names no service that is known here; sign it, as every AWS client does by default",
    )


def _not_implemented(request: Request, service: str, error: NotImplementedError) -> AwsError:
    target = request.headers.get("x-amz-target") or ""
    what = target.rpartition(".")[2] or str(error) or f"{request.method} {request.path}"
    return AwsError(
        "NotImplemented",
        f"{service}: {what} is not run by this server: its {service} is moto's, which lacks it",
        status=501,
    )
