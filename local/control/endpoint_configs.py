"""Endpoint configurations: which models an endpoint runs, on how many instances, for what share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from byoa.local.api.listing import page
from byoa.local.api.tags import check_tags
from byoa.local.control.models import find_model
from byoa.local.control.unsupported import raise_all, refused
from byoa.local.errors import ValidationException
from byoa.local.settings import Caller
from byoa.local.storage.state import AlreadyExists, Row, State

KIND = "endpoint-config"
_NEAREST = "the nearest is an instance-based variant: ModelName, InstanceType, InitialInstanceCount"
_CONFIG_REFUSALS = {
    "AsyncInferenceConfig": "the nearest is a real-time endpoint, InvokeEndpoint",
    "ExplainerConfig": "explain in the model's own answer",
    "ShadowProductionVariants": "send the requests to a variant of its own with TargetVariant",
    "CrossRegionTrafficConfig": "call the endpoint in the region where it was created",
}
_VARIANT_REFUSALS = {
    "ServerlessConfig": _NEAREST,
    "InstancePools": _NEAREST,
    "ManagedInstanceScaling": "change the count with UpdateEndpointWeightsAndCapacities",
    "AcceleratorType": "choose an InstanceType with the accelerator",
    "AcceleratorPartitionLayouts": "choose an InstanceType with the accelerator",
    "CoreDumpConfig": "read the container's log in /aws/sagemaker/Endpoints/<endpoint>",
    "EnableSSMAccess": "read the container's log in /aws/sagemaker/Endpoints/<endpoint>",
}
# Accepted, and without effect here.
OF_CONFIGS = ("KmsKeyId", "VpcConfig", "MetricsConfig.MetricPublishFrequencyInSeconds")
OF_VARIANTS = (
    "VolumeSizeInGB", "InferenceAmiVersion", "CapacityReservationConfig",
    "RoutingConfig.PrefixAwareRoutingConfig",
)
_STRATEGIES = ("LEAST_OUTSTANDING_REQUESTS", "RANDOM")


class EndpointConfigs:
    """The endpoint configuration operations."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.operations: dict[str, Callable[[Caller, dict[str, Any]], dict[str, Any]]] = {
            "CreateEndpointConfig": self.create,
            "DescribeEndpointConfig": self.describe,
            "ListEndpointConfigs": self.list,
            "DeleteEndpointConfig": self.delete,
        }

    def create(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Store a configuration of 1 to 10 variants of existing models (VAR-01)."""
        name = request["EndpointConfigName"]
        arn = caller.arn("endpoint-config", name)
        existing = self._state.get(KIND, caller, name)
        if existing is not None:
            raise _already(existing)
        variants = [
            {"InitialVariantWeight": 1.0, **variant} for variant in request["ProductionVariants"]
        ]
        raise_all(_problems(request, variants))
        for variant in variants:
            find_model(self._state, caller, variant["ModelName"])
        tags = check_tags(request.get("Tags") or [])
        document = {key: value for key, value in request.items() if key != "Tags"}
        document["ProductionVariants"] = variants
        try:
            self._state.create(KIND, caller, name, arn=arn, status="InService", document=document)
        except AlreadyExists as error:
            raise _already(error.row) from None
        if tags:
            self._state.set_tags(arn, tags)
        return {"EndpointConfigArn": arn}

    def describe(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        row = find_config(self._state, caller, request["EndpointConfigName"])
        return {**row.document, "EndpointConfigArn": row.arn, "CreationTime": row.created}

    def list(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        return page(
            self._state.list(KIND, caller),
            request,
            name_key="EndpointConfigName",
            default_order="Descending",
            summary=lambda row: {"EndpointConfigArn": row.arn, "CreationTime": row.created},
            result_key="EndpointConfigs",
        )

    def delete(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Endpoints made from it go on (VAR-09)."""
        row = find_config(self._state, caller, request["EndpointConfigName"])
        self._state.delete(KIND, caller, row.name)
        return {}


def find_config(state: State, caller: Caller, name: str) -> Row:
    """The configuration's row, or the service's words for its absence (WIRE-06)."""
    row = state.get(KIND, caller, name)
    if row is None:
        arn = caller.arn("endpoint-config", name)
        raise ValidationException(f'Could not find endpoint configuration "{arn}".')
    return row


def _problems(request: Mapping[str, Any], variants: list[dict[str, Any]]) -> list[str]:
    problems = refused(request, _CONFIG_REFUSALS)
    if (request.get("DataCaptureConfig") or {}).get("EnableCapture"):
        problems.append(
            "DataCaptureConfig with EnableCapture true is not supported here; record requests in"
            " the caller, or send EnableCapture false."
        )
    if request.get("EnableNetworkIsolation"):
        problems.append(
            "EnableNetworkIsolation true of an endpoint configuration is not supported here; the"
            " nearest is EnableNetworkIsolation true of its models, and EnableNetworkIsolation"
            " false here."
        )
    metrics = request.get("MetricsConfig") or {}
    problems += refused(
        metrics,
        dict.fromkeys(
            ("EnableEnhancedMetrics", "EnableDetailedObservability"),
            "read the endpoint's metrics in the namespace AWS/SageMaker",
        ),
        "MetricsConfig.",
    )
    names = [variant["VariantName"] for variant in variants]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        problems.append(f"Production variant names must be unique: {', '.join(repeated)}.")
    for variant in variants:
        problems += _variant_problems(variant)
    if not problems and not any(variant["InitialVariantWeight"] > 0 for variant in variants):
        problems.append(
            "At least one production variant must have an InitialVariantWeight above 0: traffic is"
            " shared in proportion to the weights."
        )
    return problems


def _variant_problems(variant: Mapping[str, Any]) -> list[str]:
    where = f"ProductionVariant {variant['VariantName']}: "
    problems = refused(variant, _VARIANT_REFUSALS, where)
    if problems:
        return problems
    if not variant.get("ModelName"):
        problems.append(
            f"{where}a variant without ModelName hosts inference components, which are not"
            f" supported here; {_NEAREST}."
        )
    elif not variant.get("InstanceType") or not variant.get("InitialInstanceCount"):
        problems.append(f"{where}InstanceType and InitialInstanceCount are required.")
    strategy = (variant.get("RoutingConfig") or {}).get("RoutingStrategy", _STRATEGIES[0])
    if strategy not in _STRATEGIES:
        problems.append(
            f"{where}RoutingStrategy {strategy} is not supported here; the nearest is"
            f" {' or '.join(_STRATEGIES)}."
        )
    return problems


def _already(row: Row) -> ValidationException:
    return ValidationException(
        f'Cannot create already existing endpoint configuration "{row.arn}".'
    )
