"""One port, every service: finds out whom a request is for and hands it over.

The order: X-Amz-Target, the signature's credential scope, the path, the host; S3 is what is left,
as it is the one service that is called unsigned or with a presigned URL.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol
from urllib.parse import parse_qs

from byoa.local.api import service_model
from byoa.local.api.http_messages import BadRequest, Disconnected
from byoa.local.api.sagemaker import TARGET_PREFIX
from byoa.local.api.serialization import request_id, rest_error
from byoa.local.aws.errors import error_response
from byoa.local.errors import AwsError, UnknownOperation
from byoa.local.settings import Caller, Settings

if TYPE_CHECKING:
    from byoa.local.api.http import Request, Response
    from byoa.local.api.sagemaker import Fallback

log = logging.getLogger(__name__)

INVOCATIONS = re.compile(r"/endpoints/[^/]+/invocations(?:-response-stream)?")
# The same and what is not run of the kind: async-invocations, invocations-bidirectional-stream.
_RUNTIME = re.compile(r"/endpoints/[^/]+/(?:async-)?invocations(?:-[a-z-]+)?")
# It needs HTTP/2, and botocore's model has no operation for it (BIDI-02).
_BIDIRECTIONAL = re.compile(r"/endpoints/[^/]+/invocations-bidirectional-stream")
_S3_SERVICES = frozenset({"s3", "s3express", "s3-object-lambda"})
# <service>.amazonaws.com, <service>.<region>.amazonaws.com, both with .cn; <service>.….api.aws
_AWS_HOST = re.compile(
    r"(?:(?P<head>[a-z0-9.-]+)\.)?amazonaws\.com(?:\.cn)?|(?P<api>[a-z0-9.-]+)\.api\.aws"
)
_REGION = re.compile(r"(?:af|ap|ca|cn|eu|il|me|mx|sa|us)(?:-[a-z]+){1,3}-\d+")
# The SDKs' usage reports: they would otherwise leave the machine, or hang without a network.
_TELEMETRY_HOST = re.compile(r"(?:sm-pysdk-t-|dev-exp-t-)[a-z0-9-]+\.s3\.[a-z0-9.-]+")

__all__ = ["Dispatcher", "Scope", "is_aws_host", "scope_of"]


class Runtime(Protocol):
    """The data plane, as `local/runtime/invocations.py` runs it."""

    def handle(self, request: Request, caller: Caller) -> Response: ...


class Control(Protocol):
    """The control plane, as `local/api/sagemaker.py` runs it."""

    def handle(self, request: Request, caller: Caller) -> Response: ...


class Scope(NamedTuple):
    """Whom a request is for; empty where it does not say."""

    service: str
    region: str


def is_aws_host(host: str) -> bool:
    """Whether `host` (with or without a port) is one that AWS serves its APIs on."""
    return _AWS_HOST.fullmatch(_bare(host)) is not None


def scope_of(request: Request) -> Scope:
    """Service and region of the signature, else of the host."""
    return _signed_scope(request) or _host_scope(request.host)


class Dispatcher:
    """The handler of the one port: `Request` → `Response`."""

    def __init__(
        self,
        settings: Settings,
        *,
        control: Control,
        runtime: Runtime,
        s3: Callable[[Request], Response],
        aws: Fallback,
    ) -> None:
        self._settings = settings
        self._control = control
        self._runtime = runtime
        self._s3 = s3
        self._aws = aws

    def __call__(self, request: Request) -> Response:
        """The answer; what fails unforeseen is AWS's InternalFailure in the request's protocol."""
        try:
            return self._route(request)
        except AwsError as error:
            return error_response(request, error)
        except (BadRequest, Disconnected):
            raise  # the server's own matter: there may be nobody left to answer
        except Exception as error:
            log.exception("%s %s failed", request.method, request.target[:200])
            text = f"{type(error).__name__}: {error}; the server's log has the traceback"
            return error_response(request, AwsError("InternalFailure", text, status=500))

    def _route(self, request: Request) -> Response:
        host = _bare(request.host)
        if _TELEMETRY_HOST.fullmatch(host):
            return _empty()
        scope = scope_of(request)
        caller = Caller(self._settings.account, scope.region or self._settings.region)
        target = request.headers.get("x-amz-target") or ""
        if target.startswith(TARGET_PREFIX):
            return self._control.handle(request, caller)
        if scope.service == "sagemaker" or (
            # Plain HTTP clients need no signature: S3 has no POST to an object's path.
            request.method == "POST"
            and scope.service == ""
            and _RUNTIME.fullmatch(request.path)
        ):
            return self._data_plane(request, caller)
        if scope.service and scope.service not in _S3_SERVICES:
            return self._aws.handle(request, scope.service, caller)
        if scope.service == "" and (target or _is_form(request)):
            return self._aws.handle(request, "", caller)  # moto knows some by target or action
        return self._s3(request)

    def _data_plane(self, request: Request, caller: Caller) -> Response:
        if request.method == "POST" and INVOCATIONS.fullmatch(request.path):
            return self._runtime.handle(request, caller)
        if request.path == "/" and request.method == "POST":
            return error_response(
                request,
                UnknownOperation(
                    f"A request to SageMaker's API has a header X-Amz-Target: "
                    f"{TARGET_PREFIX}<Operation>; this one has "
                    f"{request.headers.get('x-amz-target') or 'none'}"
                ),
            )
        if _BIDIRECTIONAL.fullmatch(request.path):
            operation, nearest = "InvokeEndpointWithBidirectionalStream", (
                "InvokeEndpointWithResponseStream "
                "(POST /endpoints/<EndpointName>/invocations-response-stream), or the WebSocket "
                "/invocations-bidirectional-stream of the container, as `byoa serve` opens it"
            )
        else:
            operation = _operation_of(request)
            nearest = "InvokeEndpoint (POST /endpoints/<EndpointName>/invocations)"
        return rest_error(
            UnknownOperation(f"{operation} is not run by this server; nearest that is: {nearest}")
        )


def _operation_of(request: Request) -> str:
    """The runtime operation that a path belongs to, or the method and path."""
    model = service_model.service(service_model.RUNTIME)
    for name in model.operation_names:
        http = model.operation_model(name).http
        parts = re.split(r"\{\w+\}", http["requestUri"])
        pattern = "[^/]+".join(re.escape(part) for part in parts)
        if http["method"] == request.method and re.fullmatch(pattern, request.path):
            return str(name)
    return f"{request.method} {request.path[:200]}"


def _signed_scope(request: Request) -> Scope | None:
    """The credential scope of SigV4 (header or presigned query) and SigV4a (no region)."""
    credential = ""
    authorization = request.headers.get("authorization") or ""
    if "Credential=" in authorization:
        credential = authorization.partition("Credential=")[2].split(",", 1)[0]
    elif "X-Amz-Credential=" in request.query:
        credential = parse_qs(request.query).get("X-Amz-Credential", [""])[0]
    elif authorization.startswith("AWS ") or "AWSAccessKeyId=" in request.query:
        return Scope("s3", "")  # signature version 2, which only S3 still gets
    parts = credential.strip().split("/")
    if len(parts) < 4 or parts[-1] != "aws4_request":
        return None
    # <key>/<date>/<region>/<service>/aws4_request; the key itself may contain slashes.
    region = parts[-3] if len(parts) >= 5 else ""
    return Scope(parts[-2].lower(), region)


def _host_scope(host: str) -> Scope:
    """`sts.us-west-2.amazonaws.com` → sts, us-west-2; anything with s3 in it is S3."""
    match = _AWS_HOST.fullmatch(_bare(host))
    if match is None:
        return Scope("", "")
    labels = (match["head"] or match["api"] or "").split(".")
    region = next((label for label in labels if _REGION.fullmatch(label)), "")
    # A bucket's name comes before "s3", "s3-<region>" or "s3.<region>", and may contain dots.
    if any(label == "s3" or label.startswith("s3-") for label in labels):
        dashed = next((lab[3:] for lab in labels if _REGION.fullmatch(lab[3:])), "")
        return Scope("s3", region or dashed)
    names = [label for label in labels if label != region]
    return Scope("sagemaker" if "sagemaker" in names else (names or [""])[-1], region)


def _bare(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).rstrip(".").lower()


def _is_form(request: Request) -> bool:
    content_type = request.headers.get("content-type") or ""
    return (
        request.method == "POST"
        and request.path == "/"
        and content_type.startswith("application/x-www-form-urlencoded")
    )


def _empty() -> Response:
    from byoa.local.api.http import Response

    return Response(status=200, headers=[("x-amzn-RequestId", request_id())], body=b"")
