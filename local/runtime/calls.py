"""One call of the runtime's API: what its caller said, and what the container is told of it.

Headers pass by the table of the contract (HOST-30, HOST-34); a streamed call has some of them under
other names (STRM-03).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from byoa.container import contract
from byoa.local.api.http import Headers, Request
from byoa.local.api.service_model import RUNTIME, operation
from byoa.local.api.validation import validate
from byoa.local.errors import ValidationException
from byoa.local.runtime import event_stream
from byoa.local.runtime.errors import ModelError, ValidationError
from byoa.local.settings import Caller

if TYPE_CHECKING:
    from botocore.model import Shape

TARGET_VARIANT = "X-Amzn-SageMaker-Target-Variant"
TARGET_MODEL = "X-Amzn-SageMaker-Target-Model"
SESSION_ID = "X-Amzn-SageMaker-Session-Id"
NEW_SESSION = "NEW_SESSION"  # as SessionId: open one
NEW_SESSION_ID = "x-amzn-sagemaker-new-session-id"
CLOSED_SESSION_ID = "x-amzn-sagemaker-closed-session-id"
STREAM_ACCEPT = "X-Amzn-SageMaker-Accept"
STREAM_CONTENT_TYPE = "X-Amzn-SageMaker-Content-Type"
CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"

PLAIN, STREAMED = "invocations", "invocations-response-stream"
# Headers that ask for something that no endpoint here has.
_REFUSED = {
    "X-Amzn-SageMaker-Target-Container-Hostname": "TargetContainerHostname needs a multi-container"
    " endpoint in direct mode, which is not run here; create one endpoint for each container",
    "X-Amzn-SageMaker-Inference-Component": "InferenceComponentName needs an inference component,"
    " which is not run here; name the model in the endpoint's production variant",
    "X-Amzn-SageMaker-Enable-Explanations": "EnableExplanations needs an ExplainerConfig, which is"
    " not run here; call InvokeEndpoint without it",
}
_PASSED = tuple(
    name for name in contract.REQUEST_HEADERS if name not in (*_REFUSED, TARGET_MODEL)
)
_RETURNED = tuple((name.lower(), name) for name in contract.RESPONSE_HEADERS)


class Call(NamedTuple):
    """An invocation as its caller made it."""

    caller: Caller
    endpoint: str
    headers: Headers
    body: bytes | bytearray
    request_id: str
    began: float  # of the monotonic clock

    @property
    def session(self) -> str | None:
        """The id of the existing session that it belongs to (SESS-01)."""
        name = self.headers.get(SESSION_ID)
        return None if name == NEW_SESSION else name

    def error(self, status: int, message: str) -> ModelError:
        """What the container did wrong, as this call's error."""
        return ModelError(self.caller, self.endpoint, status, message)

    def head(self, path: str = contract.INVOCATIONS_PATH, *, target: bool = False) -> bytes:
        """The head of the container's request; with `target` it says TargetModel."""
        return self._head(path, (*_PASSED, TARGET_MODEL) if target else _PASSED)

    def streamed_head(self) -> bytes:
        """The same of a streamed call."""
        passed = [name for name in _PASSED if name != "Accept"]
        return self._head(contract.INVOCATIONS_PATH, passed, self.headers.get(STREAM_ACCEPT))

    def _head(self, path: str, passed: Iterable[str], accept: str | None = None) -> bytes:
        lines = [f"POST {path} HTTP/1.1", f"Host: localhost:{contract.DEFAULT_PORT}",
                 f"User-Agent: {contract.HOSTING_USER_AGENT}"]
        for name in passed:
            value = self.headers.get(name)
            if value is not None:
                lines.append(f"{name}: {value}")
        if accept is not None:
            lines.append(f"Accept: {accept}")
        lines.append(f"Content-Length: {len(self.body)}\r\n\r\n")
        return "\r\n".join(lines).encode("latin-1", errors="replace")

    def answer_headers(self, given: Mapping[str, str], variant: str) -> list[tuple[str, str]]:
        """The caller's answer headers, from those that the container gave (WIRE-33)."""
        return [*((name, given[key]) for key, name in _RETURNED if key in given),
                *self._own(variant)]

    def streamed_answer_headers(
        self, given: Mapping[str, str], variant: str
    ) -> list[tuple[str, str]]:
        """The same of a streamed call; sessions are not among its members."""
        headers = [("Content-Type", event_stream.CONTENT_TYPE)]
        for key, name in (("content-type", STREAM_CONTENT_TYPE),
                          (CUSTOM_ATTRIBUTES.lower(), CUSTOM_ATTRIBUTES)):
            if key in given:
                headers.append((name, given[key]))
        return headers + self._own(variant)

    def _own(self, variant: str) -> list[tuple[str, str]]:
        return [("x-Amzn-Invoked-Production-Variant", variant),
                ("x-amzn-RequestId", self.request_id)]


def target_of(request: Request) -> tuple[str, bool]:
    """The endpoint in `/endpoints/<name>/invocations`, percent-decoded (WIRE-31), and whether its
    answer is to be streamed."""
    _, _, name, action = (*request.path.split("/", 3), "", "", "", "")[:4]
    if request.method != "POST" or action not in (PLAIN, STREAMED):
        raise ValidationError(
            f"{request.method} {request.path} is not run here; the nearest is InvokeEndpoint,"
            " POST /endpoints/<name>/invocations."
        )
    return unquote(name), action == STREAMED


@cache
def _shape(streamed: bool) -> tuple[Shape, dict[str, str]]:
    """The input of the operation, and its members by header."""
    name = "InvokeEndpointWithResponseStream" if streamed else "InvokeEndpoint"
    model = operation(RUNTIME, name)
    shape = model.input_shape if model is not None else None
    if shape is None:
        raise RuntimeError(f"botocore's {RUNTIME} has no {name}")
    return shape, {
        member.serialization["name"]: member_name
        for member_name, member in shape.members.items()
        if member.serialization.get("location") == "header"
    }


def check(endpoint: str, headers: Headers, *, streamed: bool) -> None:
    """Raise ValidationError for a name or a header beyond the API's limits (HOST-34)."""
    shape, members = _shape(streamed)
    request = {member: headers.get(name) for name, member in members.items()}
    try:
        # The body has been read, within its own limit.
        validate(shape, {"EndpointName": endpoint, "Body": "", **request})
    except ValidationException as error:
        raise ValidationError(error.message) from None


def refuse(headers: Headers, *, streamed: bool) -> None:
    """Raise ValidationError for what no endpoint here has, or the streamed call does not know."""
    for name, reason in _REFUSED.items():
        if name in headers:
            raise ValidationError(f"{reason}.")
    if not streamed:
        return
    if TARGET_MODEL in headers:
        raise ValidationError(
            "InvokeEndpointWithResponseStream has no TargetModel; call InvokeEndpoint with it."
        )
    if headers.get(SESSION_ID) == NEW_SESSION:
        raise ValidationError(
            "InvokeEndpointWithResponseStream opens no session; open one by InvokeEndpoint with"
            " SessionId NEW_SESSION, and give its id here."
        )
