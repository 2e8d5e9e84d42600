"""Errors of the runtime API: what InvokeEndpoint's caller gets, in the service's words.

    ValidationError      400   unknown endpoint or variant, endpoint not ready (ERR-06, ERR-07)
    413                  413   request body over the limit (HOST-32)
    ModelNotReady        429   a model of a multi-model endpoint is still being loaded (MME-07)
    ModelError           424   the container answered >= 400, late, or not at all (ERR-01 … ERR-04)
    ServiceUnavailable   503   the endpoint is coming back after a restart of the service
"""

from __future__ import annotations

import json

from byoa.container.contract import ORIGINAL_MESSAGE_LIMIT_CHARACTERS
from byoa.local.api.http import Response
from byoa.local.errors import AwsError
from byoa.local.settings import Caller

TIMEOUT_MESSAGE = (
    "Your invocation timed out while waiting for a response from container primary."
    " Review the latency metrics for each container in Amazon CloudWatch, resolve the issue,"
    " and try again."
)


class ValidationError(AwsError):
    """A request that cannot be routed."""

    def __init__(self, message: str, error_code: str | None = None) -> None:
        members = {} if error_code is None else {"ErrorCode": error_code}
        super().__init__("ValidationError", message, members=members)


class ServiceUnavailable(AwsError):
    """Try again: botocore does so by itself."""

    def __init__(self, message: str) -> None:
        super().__init__("ServiceUnavailable", message, status=503)


class ModelNotReady(AwsError):
    """The target model is still on its way; the caller tries again (MME-07)."""

    def __init__(self, target: str) -> None:
        super().__init__(
            "ModelNotReadyException",
            f"The model {target} is not ready: it is still being loaded. Try again.",
            status=429,
        )


class PayloadTooLarge(AwsError):
    """boto reports the code `413`, because the answer names no type (HOST-32)."""

    def __init__(self, limit: int, size: int | None) -> None:
        given = f"The request has {size} bytes. " if size is not None else ""
        super().__init__(
            "413",
            f"HTTP content length exceeded {limit} bytes. {given}Send fewer records a request or a"
            " binary format; BYOA_PAYLOAD_LIMIT raises the limit locally.",
            status=413,
        )


class ModelError(AwsError):
    """The container's failure, with its status and body (ERR-01, ERR-02, FIX-16)."""

    def __init__(self, caller: Caller, endpoint: str, status: int, message: str) -> None:
        message = message[:ORIGINAL_MESSAGE_LIMIT_CHARACTERS]
        region, account = caller.region, caller.account
        group = f"/aws/sagemaker/Endpoints/{endpoint}"
        client = 400 <= status < 500
        super().__init__(
            "ModelError",
            f"Received {'client' if client else 'server'} error ({status}) from primary with"
            f' message "{message}". See https://{region}.console.aws.amazon.com/cloudwatch/home'
            f"?region={region}#logEventViewer:group={group} in account {account}"
            " for more information.",
            status=424,
            members={
                "ErrorCode": "CLIENT_ERROR_FROM_MODEL" if client else "SERVER_ERROR_FROM_MODEL",
                "LogStreamArn": f"arn:aws:logs:{region}:{account}:log-group:{group}",
                "OriginalMessage": message,
                "OriginalStatusCode": status,
            },
        )


def response(error: AwsError, request_id: str) -> Response:
    """The error as restJson1 carries it: type in a header, members in a JSON body (WIRE-32)."""
    document = {"Message": error.message, **error.members}
    body = json.dumps(document, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()
    headers = [("Content-Type", "application/json"), ("x-amzn-RequestId", request_id)]
    if not isinstance(error, PayloadTooLarge):
        headers.append(("x-amzn-ErrorType", error.code))
    return Response(status=error.status, headers=headers, body=body)
