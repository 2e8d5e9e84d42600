"""Every AWS service but SageMaker and S3: identities and log searches here, the rest is moto's."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from byoa.local.api.serialization import request_id
from byoa.local.aws import log_search
from byoa.local.aws.errors import error_response
from byoa.local.aws.identity import Identity, parameters
from byoa.local.aws.moto_app import Moto, access_key
from byoa.local.errors import AwsError
from byoa.local.settings import Caller

if TYPE_CHECKING:
    from byoa.local.api.http import Request, Response

log = logging.getLogger(__name__)

BODY_LIMIT = 64 * 2**20  # bytes; moto holds a request whole

__all__ = ["AwsServices"]


class AwsServices:
    """Answers requests of the other services; `moto` is for `Logs` and `Metrics`."""

    def __init__(self, account: str) -> None:
        self.moto = Moto(account)
        self._identity = Identity(self.moto)

    def warm(self) -> None:
        """Load moto in the background."""
        threading.Thread(target=self.moto.warm, name="moto-warm", daemon=True).start()

    def handle(
        self, request: Request, service: str, caller: Caller, *, body: bytes | None = None
    ) -> Response:
        """The answer of `service`. `body` is the request's, where it has been read already."""
        from byoa.local.api.http import Response

        if body is None:
            body = request.body.read(BODY_LIMIT + 1)
        if len(body) > BODY_LIMIT:
            return error_response(
                request,
                AwsError(
                    "RequestEntityTooLarge",
                    f"{service}: the request is larger than {BODY_LIMIT} bytes",
                    status=413,
                ),
            )
        if service in ("sts", "iam"):
            form = parameters(request.query, body)
            content = self._identity.answer(service, form, access_key(request))
            if content is not None:
                headers = [("Content-Type", "text/xml"), ("x-amzn-RequestId", request_id())]
                return Response(status=200, headers=headers, body=content)
        if request.headers.get("x-amz-target") == log_search.TARGET:
            try:
                return log_search.filter_log_events(self.moto, request, body, caller.region)
            except AwsError as error:
                return error_response(request, error)
        return self.moto.handle(request, service, body)
