"""The control plane: X-Amz-Target names an operation; validate, run, serialise (WIRE-01 … WIRE-04).

What is not run here is refused by name, except the pure records of `RECORDS`, which moto keeps.
"""

from __future__ import annotations

import difflib
import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from byoa.container.errors import ByoaError
from byoa.local.api import service_model
from byoa.local.api.hold import HEADER, Hold
from byoa.local.api.http_messages import BadRequest, Disconnected
from byoa.local.api.serialization import json_error, json_response
from byoa.local.api.tags import Tags
from byoa.local.api.validation import validate
from byoa.local.errors import AwsError, UnknownOperation, ValidationException
from byoa.local.settings import Caller

if TYPE_CHECKING:
    from byoa.local.api.http import Request, Response
    from byoa.local.storage.state import State

log = logging.getLogger(__name__)

Operation = Callable[[Caller, dict[str, Any]], dict[str, Any]]

TARGET_PREFIX = "SageMaker."
BODY_LIMIT = 16 * 2**20  # bytes; the largest members of the API's model are below 1 MiB

# Records that do nothing in the cloud either: writing them down is all there is to them.
_RECORDS_BY_REASON = {
    "an experiment is a name that trials refer to": (
        "CreateExperiment", "DescribeExperiment", "ListExperiments", "DeleteExperiment",
    ),
    "a trial is a list of trial components": (
        "CreateTrial", "DescribeTrial", "ListTrials", "DeleteTrial",
        "AssociateTrialComponent", "DisassociateTrialComponent",
    ),
    "a trial component is a record of parameters, metrics and artifacts": (
        "CreateTrialComponent", "DescribeTrialComponent", "ListTrialComponents",
        "UpdateTrialComponent", "DeleteTrialComponent",
    ),
    "a model package group is a name with a description": (
        "CreateModelPackageGroup", "DescribeModelPackageGroup", "ListModelPackageGroups",
    ),
    "a model card is a document with versions": (
        "CreateModelCard", "DescribeModelCard", "UpdateModelCard", "ListModelCards",
        "ListModelCardVersions", "DeleteModelCard",
    ),
    "a Studio domain is settings; the apps in it, which would run, are refused": (
        "CreateDomain", "DescribeDomain", "ListDomains", "DeleteDomain",
    ),
    "a lifecycle configuration is a stored script; notebook instances are refused": (
        "CreateNotebookInstanceLifecycleConfig", "DescribeNotebookInstanceLifecycleConfig",
        "DeleteNotebookInstanceLifecycleConfig",
    ),
}
RECORDS = {name: why for why, names in _RECORDS_BY_REASON.items() for name in names}

__all__ = ["RECORDS", "ControlPlane", "Operation"]


class Fallback(Protocol):
    """moto, as `local/aws/services.py` embeds it."""

    def handle(
        self, request: Request, service: str, caller: Caller, *, body: bytes | None = None
    ) -> Response: ...


class ControlPlane:
    """Answers `POST /` with `X-Amz-Target: SageMaker.<Operation>`."""

    def __init__(
        self,
        operations: Mapping[str, Operation],
        *,
        state: State,
        aws: Fallback,
        describe_hold: float,
    ) -> None:
        self._tags = Tags(state)
        self._operations: dict[str, Operation] = {**self._tags.operations, **operations}
        self._aws = aws
        self._hold = Hold(describe_hold, state.wait_for_change)

    @property
    def operation_names(self) -> list[str]:
        """The operations that are run here, sorted."""
        return sorted(self._operations)

    def close(self) -> None:
        """Answer the Describe calls that are held."""
        self._hold.close()

    def handle(self, request: Request, caller: Caller) -> Response:
        """The answer to one request; never raises for anything that the request says."""
        name = (request.headers.get("x-amz-target") or "").removeprefix(TARGET_PREFIX)
        try:
            return self._answer(name, request, caller)
        except AwsError as error:
            log.info("%s: %s", name, error)
            return json_error(error)
        except ByoaError as error:
            log.info("%s: %s", name, error)
            return json_error(ValidationException(str(error)))
        except (BadRequest, Disconnected):
            raise  # the server's own matter: there may be nobody left to answer
        except Exception as error:
            log.exception("%s failed", name)
            return json_error(
                AwsError(
                    "InternalFailure",
                    f"{name} failed with {type(error).__name__}: {error}; "
                    "the server's log has the traceback",
                    status=500,
                )
            )

    def _answer(self, name: str, request: Request, caller: Caller) -> Response:
        model = service_model.operation(service_model.CONTROL, name)
        if model is None:
            raise _unrecognised(name)
        body = _read(request)
        validated = validate(model.input_shape, _parse(body))
        if validated.unknown:
            log.info(
                "%s: members that the API's model does not have are ignored: %s",
                name,
                ", ".join(validated.unknown),
            )
        asked = validated.request
        run = self._operations.get(name)
        if name in RECORDS or self._tags_elsewhere(name, asked):
            return self._aws.handle(request, "sagemaker", caller, body=body)
        if run is None:
            raise self._not_run(name)
        if not name.startswith("Describe"):
            return json_response(model, run(caller, asked))
        output = self._hold.describe(
            name,
            lambda: run(caller, dict(asked)),  # an operation may edit what it is given
            user_agent=request.headers.get("user-agent") or "",
            immediate=request.headers.get(HEADER) == "0",
        )
        return json_response(model, output)

    def _tags_elsewhere(self, name: str, asked: Mapping[str, Any]) -> bool:
        """Whether this is about tags of a record that moto keeps."""
        if name not in self._tags.operations:
            return False
        kind = str(asked["ResourceArn"]).split(":", 5)[-1].split("/", 1)[0]
        return kind in _RECORD_KINDS

    def _not_run(self, name: str) -> UnknownOperation:
        alike = _alike(name, {*self._operations, *RECORDS})
        hint = (
            f"nearest that is: {', '.join(alike)}"
            if alike
            else 'see the table "What runs, and what is refused" in byoa\'s README'
        )
        return UnknownOperation(f"{name} is not run by this server; {hint}")


_RECORD_KINDS = (
    "experiment", "experiment-trial", "experiment-trial-component", "model-package-group",
    "model-card", "domain", "notebook-instance-lifecycle-config",
)


_VERB = re.compile(r"(?:Batch)?[A-Z][a-z]+")
_ALIKE = 0.65  # of the whole names …
_NOUNS_ALIKE = 0.55  # … and without their verbs, which alone would make any two Describes alike


def _alike(name: str, known: Iterable[str]) -> list[str]:
    """Up to three of `known` whose verb and noun together resemble `name`'s, best first."""
    noun = _VERB.sub("", name, count=1)
    ratios = {
        other: _ratio(name, other)
        for other in known
        if _ratio(noun, _VERB.sub("", other, count=1)) >= _NOUNS_ALIKE
    }
    close = [other for other, ratio in ratios.items() if ratio >= _ALIKE]
    return sorted(close, key=lambda other: (-ratios[other], other))[:3]


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _unrecognised(name: str) -> UnknownOperation:
    names = service_model.service(service_model.CONTROL).operation_names
    close = service_model.nearest(name, names)
    hint = f"; did you mean {', '.join(close)}?" if close else ""
    return UnknownOperation(f"The service has no operation {name[:100]!r}{hint}")


def _read(request: Request) -> bytes:
    length = request.body.length
    if length is not None and length > BODY_LIMIT:
        raise _too_large()
    body = request.body.read(BODY_LIMIT + 1)
    if len(body) > BODY_LIMIT:
        raise _too_large()
    return body


def _too_large() -> AwsError:
    return AwsError(
        "RequestEntityTooLargeException",
        f"The request is larger than {BODY_LIMIT} bytes",
        status=413,
    )


def _parse(body: bytes) -> Any:
    if not body.strip():
        return {}
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise AwsError("SerializationException", f"The body is not JSON: {error}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
