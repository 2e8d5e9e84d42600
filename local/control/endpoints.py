"""Endpoints: create, update, scale and delete, as a state machine over fleets of containers.

    Creating → InService | Failed            a new fleet is healthy, or is not
    Updating → InService                     the new fleet takes over at once; on failure the old
             → RollingBack → InService       one goes on, with the reason (VAR-05, ALG-04)
    SystemUpdating → InService | Failed      after a restart of the service
    Deleting → gone
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from byoa.container.errors import UnsupportedError
from byoa.local.api.listing import page
from byoa.local.api.tags import check_tags
from byoa.local.control.deployments import Deployment, deployment_of
from byoa.local.control.endpoint_descriptions import describe_endpoint
from byoa.local.control.endpoint_instances import Platform
from byoa.local.control.endpoint_runs import KIND, EndpointRuns
from byoa.local.control.unsupported import raise_all, refused
from byoa.local.errors import ValidationException
from byoa.local.runtime.routing import Router
from byoa.local.settings import Caller
from byoa.local.storage.state import AlreadyExists, Missing, Row, State

_ALL_AT_ONCE = "the nearest is BlueGreenUpdatePolicy with TrafficRoutingConfiguration ALL_AT_ONCE"
_RETAINED = {"DesiredInstanceCount": "count", "DesiredWeight": "weight"}
_IN_PROGRESS = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")


class Endpoints:
    """The endpoint operations; owns every container that serves."""

    def __init__(self, state: State, platform: Platform, router: Router) -> None:
        self._state = state
        self._platform = platform
        self._runs = EndpointRuns(state, platform, router)
        self.operations: dict[str, Callable[[Caller, dict[str, Any]], dict[str, Any]]] = {
            "CreateEndpoint": self.create,
            "DescribeEndpoint": self.describe,
            "ListEndpoints": self.list,
            "UpdateEndpoint": self.update,
            "UpdateEndpointWeightsAndCapacities": self.update_weights,
            "DeleteEndpoint": self.delete,
        }

    def start(self) -> None:
        """Bring back the endpoints of an earlier server."""
        self._runs.start()

    def close(self, timeout: float) -> None:
        """Stop every container; the endpoints come back at the next start."""
        self._runs.close(timeout)

    def status(self, caller: Caller, name: str) -> str | None:
        """EndpointStatus; None when there is no such endpoint."""
        row = self._state.get(KIND, caller, name)
        return None if row is None else row.status

    def create(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Store the endpoint as Creating and start its instances."""
        name = request["EndpointName"]
        arn = caller.arn("endpoint", name)
        existing = self._state.get(KIND, caller, name)
        if existing is not None:
            raise _already(existing)
        raise_all(_deployment_problems(request.get("DeploymentConfig") or {}))
        deployment = deployment_of(
            self._state, caller, request["EndpointConfigName"], time.time()
        )
        self._check_images(deployment)
        tags = check_tags(request.get("Tags") or [])
        document = {
            "current": deployment.to_json(),
            "target": None,
            "deployment_config": request.get("DeploymentConfig"),
        }
        try:
            self._state.create(KIND, caller, name, arn=arn, status="Creating", document=document)
        except AlreadyExists as error:
            raise _already(error.row) from None
        if tags:
            self._state.set_tags(arn, tags)
        self._runs.create(caller, name)
        return {"EndpointArn": arn}

    def describe(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        row = self._find(caller, request["EndpointName"])
        return describe_endpoint(row, self._runs.ready_count)

    def list(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        return page(
            self._state.list(KIND, caller),
            request,
            name_key="EndpointName",
            default_order="Descending",
            summary=lambda row: {
                "EndpointArn": row.arn,
                "CreationTime": row.created,
                "LastModifiedTime": row.modified,
                "EndpointStatus": row.status,
            },
            result_key="Endpoints",
        )

    def update(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Deploy another configuration beside the running one, then switch (ALG-04)."""
        row = self._find(caller, request["EndpointName"])
        _check_idle(row)
        given = request.get("DeploymentConfig")
        raise_all(_deployment_problems(given or {}))
        deployment = deployment_of(
            self._state, caller, request["EndpointConfigName"], time.time()
        )
        self._check_images(deployment)
        retained = _retained(request)

        def change(row: Row) -> None:
            _check_idle(row)
            # Read again: a change of weights may have come between.
            current = Deployment.from_json(row.document["current"])
            target = deployment.retain(current, retained)
            _check_weights(target)
            if given is not None or not request.get("RetainDeploymentConfig"):
                row.document["deployment_config"] = given
            row.document["target"] = {"deployment": target.to_json(), "started": time.time()}
            row.document.pop("failure", None)
            row.status = "Updating"

        self._mutate(row, change)
        self._runs.deploy(caller, row.name)
        return {"EndpointArn": row.arn}

    def update_weights(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Change weights and instance counts of the running variants (VAR-10)."""
        row = self._find(caller, request["EndpointName"])
        changes, problems = _changes(request["DesiredWeightsAndCapacities"])
        raise_all(problems)

        def change(row: Row) -> None:
            _check_idle(row)
            current = Deployment.from_json(row.document["current"])
            unknown = [name for name in changes if current.variant(name) is None]
            if unknown:
                raise ValidationException(
                    f"Could not find variant {', '.join(unknown)} of endpoint \"{row.arn}\"; it"
                    f" has {', '.join(each.name for each in current.variants)}."
                )
            target = current.change(changes)
            _check_weights(target)
            row.document["target"] = {"deployment": target.to_json(), "started": time.time()}
            row.document.pop("failure", None)
            row.status = "Updating"

        self._mutate(row, change)
        self._runs.scale(caller, row.name)
        return {"EndpointArn": row.arn}

    def delete(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Stop its containers, then forget it; its configuration and models stay."""
        row = self._find(caller, request["EndpointName"])

        def change(row: Row) -> None:
            if row.status in _IN_PROGRESS:
                raise _busy(row)
            row.status = "Deleting"

        self._mutate(row, change)
        self._runs.delete(caller, row.name)
        return {}

    def _mutate(self, row: Row, change: Callable[[Row], None]) -> None:
        try:
            self._state.mutate(KIND, row.caller, row.name, change)
        except Missing:
            raise _missing(row.caller, row.name) from None

    def _find(self, caller: Caller, name: str) -> Row:
        row = self._state.get(KIND, caller, name)
        if row is None:
            raise _missing(caller, name)
        return row

    def _check_images(self, deployment: Deployment) -> None:
        for variant in deployment.variants:
            try:
                self._platform.runner.check(
                    variant.image, isolated=variant.isolated, serves=True
                )
            except UnsupportedError as error:
                raise ValidationException(f"Variant {variant.name}: {error}") from None


def _missing(caller: Caller, name: str) -> ValidationException:
    return ValidationException(f'Could not find endpoint "{caller.arn("endpoint", name)}".')


def _already(row: Row) -> ValidationException:
    return ValidationException(f'Cannot create already existing endpoint "{row.arn}".')


def _busy(row: Row) -> ValidationException:
    return ValidationException(f'Cannot update in-progress endpoint "{row.arn}".')


def _check_idle(row: Row) -> None:
    if row.status in _IN_PROGRESS:
        raise _busy(row)
    if row.status != "InService":
        raise ValidationException(
            f'Cannot update endpoint "{row.arn}" in status {row.status}: it can only be deleted.'
        )


def _check_weights(deployment: Deployment) -> None:
    if not any(variant.weight > 0 for variant in deployment.variants):
        raise ValidationException(
            "At least one production variant must have a weight above 0: traffic is shared in"
            " proportion to the weights."
        )


def _retained(request: Mapping[str, Any]) -> list[str]:
    """The properties of the running variants that an update keeps (DEP-01)."""
    if not request.get("RetainAllVariantProperties"):
        return []
    excluded = {
        each["VariantPropertyType"]
        for each in request.get("ExcludeRetainedVariantProperties") or []
    }
    return [name for kind, name in _RETAINED.items() if kind not in excluded]


def _changes(
    wanted: list[dict[str, Any]],
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Changes by variant, and what is wrong with them."""
    changes: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    for each in wanted:
        name = each["VariantName"]
        where = f"Variant {name}: "
        problems += refused(
            each,
            {"ServerlessUpdateConfig": "change DesiredInstanceCount of an instance-based variant"},
            where,
        )
        if name in changes:
            problems.append(f"{where}it is named twice.")
        count = each.get("DesiredInstanceCount")
        if count == 0:
            problems.append(f"{where}DesiredInstanceCount must be at least 1.")
        change = {"count": count, "weight": each.get("DesiredWeight")}
        changes[name] = {key: value for key, value in change.items() if value is not None}
    return changes, problems


def _deployment_problems(config: Mapping[str, Any]) -> list[str]:
    problems = refused(config, {"RollingUpdatePolicy": _ALL_AT_ONCE}, "DeploymentConfig.")
    if (config.get("AutoRollbackConfiguration") or {}).get("Alarms"):
        problems.append(
            "DeploymentConfig.AutoRollbackConfiguration.Alarms is not supported here; an update"
            " whose containers do not become healthy is rolled back without alarms."
        )
    policy = config.get("BlueGreenUpdatePolicy") or {}
    routing = (policy.get("TrafficRoutingConfiguration") or {}).get("Type", "ALL_AT_ONCE")
    if routing != "ALL_AT_ONCE":
        problems.append(
            f"TrafficRoutingConfiguration {routing} is not supported here; {_ALL_AT_ONCE}."
        )
    return problems

