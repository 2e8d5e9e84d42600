"""Models: a serving image, its environment and its artifacts under a name (HOST-05, HOST-06)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from byoa.container.errors import UnsupportedError
from byoa.local.api.listing import page
from byoa.local.api.tags import check_tags
from byoa.local.control.model_data import ModelData, model_data
from byoa.local.control.unsupported import raise_all, refused
from byoa.local.errors import ValidationException
from byoa.local.runners.base import Runner
from byoa.local.settings import Caller
from byoa.local.storage.buckets import Buckets
from byoa.local.storage.state import AlreadyExists, Row, State

KIND = "model"
ENVIRONMENT_LIMIT_BYTES = 32 * 1024
_CONTAINER_REFUSALS = {
    "AdditionalModelDataSources": "put everything into one ModelDataUrl or ModelDataSource",
    "ModelPackageName": "name Image and ModelDataUrl of the package in the container",
    "InferenceSpecificationName": "name Image and ModelDataUrl of the package in the container",
    "ContainerMetricsConfig": "read the endpoint's metrics in the namespace AWS/SageMaker",
}
# Accepted, and without effect here.
OF_MODELS = ("VpcConfig",)
OF_CONTAINERS = ("ImageConfig.RepositoryAuthConfig",)


class Models:
    """The model operations."""

    def __init__(self, state: State, buckets: Buckets, runner: Runner) -> None:
        self._state = state
        self._buckets = buckets
        self._runner = runner
        self.operations: dict[str, Callable[[Caller, dict[str, Any]], dict[str, Any]]] = {
            "CreateModel": self.create,
            "DescribeModel": self.describe,
            "ListModels": self.list,
            "DeleteModel": self.delete,
        }

    def create(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Store a model whose image this machine runs and whose artifacts exist."""
        name = request["ModelName"]
        arn = caller.arn("model", name)
        existing = self._state.get(KIND, caller, name)
        if existing is not None:
            raise _already(existing)
        container = container_of(request)
        self._check_image(container["Image"], bool(request.get("EnableNetworkIsolation")))
        data = model_data(container, "container")
        if data is not None:
            data.check(self._buckets)
        tags = check_tags(request.get("Tags") or [])
        document = {key: value for key, value in request.items() if key != "Tags"}
        document.setdefault("EnableNetworkIsolation", False)
        for key in ("PrimaryContainer", "Containers"):
            if document.get(key):
                document[key] = _with_defaults(document[key])
        try:
            self._state.create(KIND, caller, name, arn=arn, status="InService", document=document)
        except AlreadyExists as error:
            raise _already(error.row) from None
        if tags:
            self._state.set_tags(arn, tags)
        return {"ModelArn": arn}

    def describe(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        row = find_model(self._state, caller, request["ModelName"])
        return {**row.document, "ModelArn": row.arn, "CreationTime": row.created}

    def list(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        return page(
            self._state.list(KIND, caller),
            request,
            name_key="ModelName",
            default_order="Descending",
            summary=lambda row: {"ModelArn": row.arn, "CreationTime": row.created},
            result_key="Models",
        )

    def delete(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Endpoints that run the model go on (VAR-09)."""
        row = find_model(self._state, caller, request["ModelName"])
        self._state.delete(KIND, caller, row.name)
        return {}

    def _check_image(self, image: str, isolated: bool) -> None:
        try:
            self._runner.check(image, isolated=isolated, serves=True)
        except UnsupportedError as error:
            raise ValidationException(str(error)) from None


def find_model(state: State, caller: Caller, name: str) -> Row:
    """The model's row, or the service's words for its absence (WIRE-06)."""
    row = state.get(KIND, caller, name)
    if row is None:
        raise ValidationException(f'Could not find model "{caller.arn("model", name)}".')
    return row


def container_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """The one container of a model's definition; raises ValidationException for what is not run.

    `Containers` of exactly one is the same as PrimaryContainer.
    """
    primary, containers = model.get("PrimaryContainer"), model.get("Containers") or []
    if bool(primary) == bool(containers):
        raise ValidationException("Give either PrimaryContainer or Containers, and not both.")
    if len(containers) > 1:
        raise ValidationException(
            f"A model of {len(containers)} Containers (an inference pipeline or a multi-container"
            " endpoint) is not supported here; the nearest is a model of one container."
        )
    container: dict[str, Any] = primary or containers[0]
    mode = (model.get("InferenceExecutionConfig") or {}).get("Mode", "Serial")
    problems = _problems(container, mode)
    raise_all(problems)
    return container


def _problems(container: Mapping[str, Any], execution_mode: str) -> list[str]:
    problems = refused(container, _CONTAINER_REFUSALS, "ContainerDefinition.")
    if container.get("MultiModelConfig") and container.get("Mode") != "MultiModel":
        problems.append("ContainerDefinition.MultiModelConfig needs Mode MultiModel.")
    if execution_mode != "Serial":
        problems.append(
            "InferenceExecutionConfig.Mode Direct is not supported here; the nearest is Serial,"
            " with one container."
        )
    access = (container.get("ImageConfig") or {}).get("RepositoryAccessMode", "Platform")
    if access != "Platform":
        problems.append(
            "ImageConfig.RepositoryAccessMode Vpc is not supported here; the nearest is Platform."
        )
    if not container.get("Image") and not container.get("ModelPackageName"):
        problems.append("ContainerDefinition.Image is required.")
    environment = container.get("Environment") or {}
    size = sum(len(key.encode()) + len(value.encode()) for key, value in environment.items())
    if size > ENVIRONMENT_LIMIT_BYTES:
        problems.append(
            f"ContainerDefinition.Environment has {size} bytes; at most"
            f" {ENVIRONMENT_LIMIT_BYTES} are allowed."
        )
    return problems


def _with_defaults(value: Any) -> Any:
    """The members that the service fills in (WIRE-12)."""
    if isinstance(value, list):
        return [_with_defaults(each) for each in value]
    return {"Mode": "SingleModel", **value}


def artifacts_of(container: Mapping[str, Any]) -> ModelData | None:
    """The artifacts of a container that `create` accepted."""
    return model_data(container, "container")


def _already(row: Row) -> ValidationException:
    return ValidationException(f'Cannot create already existing model "{row.arn}".')
