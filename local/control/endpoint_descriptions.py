"""DescribeEndpoint's answer from an endpoint's row (VAR-08)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from byoa.local.control.deployments import Deployment, Variant
from byoa.local.storage.state import Row

# Instances of a variant, by generation and variant name, that take requests now.
ReadyCount = Callable[[Row, str, str], int]


def describe_endpoint(row: Row, ready: ReadyCount) -> dict[str, Any]:
    """All members that apply to the endpoint's status."""
    current = Deployment.from_json(row.document["current"])
    target = row.document.get("target")
    wanted = current
    if target is not None:
        wanted = Deployment.from_json(target["deployment"])
    answer: dict[str, Any] = {
        "EndpointName": row.name,
        "EndpointArn": row.arn,
        "EndpointConfigName": current.config,
        "EndpointStatus": row.status,
        "CreationTime": row.created,
        "LastModifiedTime": row.modified,
    }
    scaled = wanted if wanted.generation == current.generation else current
    answer["ProductionVariants"] = [
        _summary(row, current.generation, variant, scaled.variant(variant.name) or variant, ready)
        for variant in current.variants
    ]
    if target is not None and wanted.generation != current.generation:
        answer["PendingDeploymentSummary"] = {
            "EndpointConfigName": wanted.config,
            "ProductionVariants": [
                _pending(row, wanted.generation, variant, target["started"], ready)
                for variant in wanted.variants
            ],
            "StartTime": target["started"],
        }
    if row.document.get("deployment_config"):
        answer["LastDeploymentConfig"] = row.document["deployment_config"]
    if row.document.get("failure"):
        answer["FailureReason"] = row.document["failure"]
    return answer


def _summary(
    row: Row, generation: str, variant: Variant, wanted: Variant, ready: ReadyCount
) -> dict[str, Any]:
    creating = row.status in ("Creating", "Failed")
    summary = {
        "VariantName": variant.name,
        "DeployedImages": _images(variant),
        "CurrentWeight": 0.0 if creating else variant.weight,
        "DesiredWeight": wanted.weight,
        "CurrentInstanceCount": ready(row, generation, variant.name) if creating else variant.count,
        "DesiredInstanceCount": wanted.count,
        "RoutingConfig": {"RoutingStrategy": variant.strategy},
    }
    if row.status in ("Creating", "Updating", "Deleting"):
        summary["VariantStatus"] = [_status(row.status, row.modified)]
    return summary


def _pending(
    row: Row, generation: str, variant: Variant, started: float, ready: ReadyCount
) -> dict[str, Any]:
    return {
        "VariantName": variant.name,
        "DeployedImages": _images(variant),
        "CurrentWeight": 0.0,
        "DesiredWeight": variant.weight,
        "CurrentInstanceCount": ready(row, generation, variant.name),
        "DesiredInstanceCount": variant.count,
        "VariantStatus": [_status("Creating", started)],
    }


def _images(variant: Variant) -> list[Mapping[str, Any]]:
    return [
        {
            "SpecifiedImage": variant.image,
            "ResolvedImage": variant.image,
            "ResolutionTime": variant.resolved,
        }
    ]


def _status(status: str, since: float) -> dict[str, Any]:
    return {"Status": status, "StartTime": since}
