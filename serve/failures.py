"""What a request is told that is not answered: whose mistake it is, and what to do."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from byoa.container.errors import AlgorithmError, ByoaError, DataError
from byoa.container.formats.base import Format
from byoa.container.formats.limits import LimitExceeded
from byoa.container.media_types import NotAcceptable
from byoa.serve.batching import RecordFailed
from byoa.serve.busy import ServerBusy
from byoa.serve.content_encoding import TooLarge, inflate
from byoa.serve.host import describe, trace
from byoa.serve.messages import REQUEST_ID, Answer, Request, as_json
from byoa.serve.settings import Settings, variables
from byoa.serve.trace import fields as trace_fields
from byoa.serve.visit import request_id

log = logging.getLogger("byoa.serve")


class Failures:
    """Refusals and failures as answers, for whatever answers the rest."""

    routes: Mapping[str, str]  # path → method

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def failed(self, request: Request, error: Exception) -> Answer:
        """400 for the caller's mistake, 413 for more than a limit allows, 503 for a full queue, 500
        for everything else.

        The traceback goes to the log, into the body only with BYOA_DEBUG (pain of leaking code).
        """
        if isinstance(error, ServerBusy):
            return self.refuse(request, 503, error.to_json(), retry=True)
        record: int | None = None
        if isinstance(error, RecordFailed):
            record, error = error.record, error.error
        fields = describe(error, "PREDICT_FAILED")
        if record is not None:
            fields["record"] = record
        if isinstance(error, NotAcceptable):
            return self.refuse(request, 406, fields)
        if isinstance(error, LimitExceeded):
            return self.refuse(request, 413, over_limit(error))
        if isinstance(error, DataError):
            unsupported = str(fields.get("code", "")).startswith("MEDIA_TYPE")
            status = getattr(error, "status_code", 415 if unsupported else 400)
            return self.refuse(request, status, fields)
        identity = request_id(request.headers)
        log.error(
            "request %s failed: %s", identity, fields["message"],
            exc_info=None if isinstance(error, AlgorithmError) and not error.__cause__ else error,
        )
        if self.settings.debug:
            fields["traceback"] = trace(error)
        return self.refuse(request, _status(error), fields, identity=identity)

    def broken(
        self, method: str, path: str, headers: Mapping[str, str], error: Exception
    ) -> Answer:
        """500 for what no door should let through."""
        request = Request(method, path, headers, b"")
        identity = request_id(request.headers)
        log.error("request %s failed", identity, exc_info=error)
        fields = describe(error, "SERVER_FAILED")
        return self.refuse(request, 500, fields, identity=identity)

    def too_late(self, request: Request) -> Answer:
        """504 with our own words, before the platform cuts the connection (HOST-31, TRAP-09)."""
        error = ByoaError(
            "PREDICT_TIMEOUT",
            f"no prediction within {self.settings.deadline:g} s,"
            f" the limit is {self.settings.timeout:g} s",
            expected="predict returns before SAGEMAKER_MODEL_SERVER_TIMEOUT",
            remedy="send fewer records, use asynchronous inference or batch transform,"
            " or raise the variable where the platform's own limit allows",
        )
        log.error("request %s: %s", request_id(request.headers), error)
        return self.refuse(request, 504, error.to_json())

    def too_large(self, request: Request, length: int) -> Answer | None:
        """413 for a body of `length` bytes over the limit, None within it (HOST-32, TRAP-10)."""
        limit = self.settings.payload_limit
        if not limit or length <= limit:
            return None
        return self.refuse(request, 413, over_limit(LimitExceeded(
            "BODY_TOO_LARGE",
            f"the body has {length} bytes or more, the limit is {limit}",
            "payload", length, limit, where=None,
            expected=f"at most {limit} bytes",
            remedy="send fewer records; use application/x-npy or recordio-protobuf, 4 bytes a"
            " value, instead of JSON",
        )))

    def inflated(self, request: Request) -> Request | Answer:
        """The request without its Content-Encoding, or why that cannot be."""
        coding = request.headers.get("content-encoding")
        if coding is None:
            return request
        limit = self.settings.payload_limit
        try:
            return request._replace(body=inflate(request.body, coding, limit))
        except TooLarge:
            return self.too_large(request, limit + 1) or request
        except DataError as error:
            status = 400 if error.code == "BODY_MALFORMED" else 415
            return self.refuse(request, status, error.to_json())

    def media_refused(
        self, request: Request, status: int, error: DataError, formats: Sequence[Format]
    ) -> Answer:
        accepted = [
            {"content_type": each.media_types[0], "sample": each.sample} for each in formats
        ]
        fields = {**error.to_json(), "accepted": accepted}
        fields["expected"] = "one of the types in `accepted`"
        return self.refuse(request, status, fields)

    def unknown(self, request: Request) -> Answer:
        routes = ", ".join(f"{method} {path}" for path, method in self.routes.items())
        known = request.path in self.routes
        what = f"{request.method} {request.path[:200]}"
        fields = ByoaError(
            "METHOD_NOT_ALLOWED" if known else "ROUTE_UNKNOWN",
            f"{what} is not answered here", expected=routes,
        ).to_json()
        answer = self.refuse(request, 405 if known else 404, fields)
        if known:
            allowed = ("Allow", self.routes[request.path])
            answer = answer._replace(headers=(*answer.headers, allowed))
        return answer

    def refuse(
        self, request: Request, status: int, fields: Mapping[str, Any], *,
        retry: bool = False, identity: str = "",
    ) -> Answer:
        identity = identity or request_id(request.headers)
        headers = ((REQUEST_ID, identity),) + ((("Retry-After", "1"),) if retry else ())
        fields = {**fields, "request_id": identity, **_trace_of(request)}
        return as_json(status, fields)._replace(headers=headers)


def over_limit(error: LimitExceeded) -> dict[str, Any]:
    """The fields of a 413: size, limit, the variable that raises it, and what else there is."""
    variable = variables(f"{error.what}_limit")[0]
    return {
        **error.to_json(),
        "size": error.size,
        "limit": error.limit,
        "variable": variable,
        "remedy": f"{error.remedy}; or use asynchronous inference or batch transform, or raise"
        f" {variable} in the model's Environment",
    }


def _status(error: Exception) -> int:
    """The status that an author's exception asks for, as sagemaker-inference's own do."""
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) and 400 <= status <= 599 else 500


def _trace_of(request: Request) -> dict[str, str]:
    found = trace_fields(request.headers)
    return {"trace_id": found["trace_id"]} if found else {}
