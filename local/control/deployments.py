"""What an endpoint runs: its variants with everything their containers need, as stored data.

A deployment is made from an endpoint configuration and its models once, so that the endpoint goes
on, and comes back after a restart, when they are deleted (VAR-09).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from byoa.local.control.endpoint_configs import OF_CONFIGS, OF_VARIANTS, find_config
from byoa.local.control.model_data import ModelData
from byoa.local.control.models import (
    OF_CONTAINERS,
    OF_MODELS,
    artifacts_of,
    container_of,
    find_model,
)
from byoa.local.control.unsupported import without_effect
from byoa.local.runtime.routing import RANDOM
from byoa.local.settings import Caller
from byoa.local.storage.state import Row, State

DOWNLOAD_SECONDS = 3600.0  # the most that ModelDataDownloadTimeoutInSeconds may ask for


@dataclass(frozen=True)
class Variant:
    """A production variant: its container, how many instances of it, for which share."""

    name: str
    model: str
    image: str
    environment: dict[str, str]
    data: ModelData | None
    count: int  # instances wanted
    weight: float
    resolved: float  # epoch seconds at which the image was looked up
    strategy: str = RANDOM
    download_seconds: float = DOWNLOAD_SECONDS
    startup_seconds: float | None = None  # None: the service's own window
    instance_type: str = ""
    hostname: str | None = None  # ContainerHostname (HOST-04)
    isolated: bool = False  # EnableNetworkIsolation of the model
    # Members of the model, its configuration and the variant that nothing here acts on.
    without_effect: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Variant:
        data = document["data"]
        return cls(**{**document, "data": None if data is None else ModelData.from_json(data)})


@dataclass(frozen=True)
class Deployment:
    """The variants that run together. A new generation has instances of its own."""

    generation: str
    config: str
    variants: tuple[Variant, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "generation": self.generation,
            "config": self.config,
            "variants": [variant.to_json() for variant in self.variants],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Deployment:
        return cls(
            document["generation"],
            document["config"],
            tuple(Variant.from_json(each) for each in document["variants"]),
        )

    def variant(self, name: str) -> Variant | None:
        return next((variant for variant in self.variants if variant.name == name), None)

    def change(self, changes: Mapping[str, Mapping[str, Any]]) -> Deployment:
        """The deployment with `count` and `weight` of the named variants changed."""
        return replace(
            self,
            variants=tuple(
                replace(variant, **changes.get(variant.name, {})) for variant in self.variants
            ),
        )

    def retain(self, current: Deployment, properties: Iterable[str]) -> Deployment:
        """The deployment with `properties` ("count", "weight") of the current one's variants of
        the same name (DEP-01)."""
        return self.change(
            {
                variant.name: {name: getattr(variant, name) for name in properties}
                for variant in current.variants
            }
        )


def deployment_of(state: State, caller: Caller, config_name: str, now: float) -> Deployment:
    """The deployment of an endpoint configuration; ValidationException where a part is missing."""
    config = find_config(state, caller, config_name)
    variants = tuple(
        _variant(each, find_model(state, caller, each["ModelName"]), config.document, now)
        for each in config.document["ProductionVariants"]
    )
    return Deployment(uuid.uuid4().hex[:12], config_name, variants)


def _variant(
    document: Mapping[str, Any], model: Row, config: Mapping[str, Any], now: float
) -> Variant:
    container = container_of(model.document)
    environment = dict(container.get("Environment") or {})
    if container.get("ContainerHostname"):
        environment["HOSTNAME"] = container["ContainerHostname"]
    startup = document.get("ContainerStartupHealthCheckTimeoutInSeconds")
    download = document.get("ModelDataDownloadTimeoutInSeconds")
    return Variant(
        name=document["VariantName"],
        model=model.name,
        image=container["Image"],
        environment=environment,
        data=artifacts_of(container),
        count=document["InitialInstanceCount"],
        weight=document["InitialVariantWeight"],
        resolved=now,
        strategy=(document.get("RoutingConfig") or {}).get("RoutingStrategy", RANDOM),
        download_seconds=DOWNLOAD_SECONDS if download is None else float(download),
        startup_seconds=None if startup is None else float(startup),
        instance_type=document["InstanceType"],
        hostname=container.get("ContainerHostname"),
        isolated=bool(model.document.get("EnableNetworkIsolation")),
        without_effect=[
            *without_effect(config, OF_CONFIGS), *without_effect(document, OF_VARIANTS),
            *without_effect(model.document, OF_MODELS), *without_effect(container, OF_CONTAINERS),
        ],
    )
