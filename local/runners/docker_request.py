"""The request that creates a container in the engine: what it runs, sees, and may use."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import docker.types

from byoa.container.contract import ROOT
from byoa.local.runners.base import ContainerSpec, Limits
from byoa.local.runners.docker_images import Found
from byoa.local.runners.docker_logs import LOG_CONFIG
from byoa.local.runners.docker_machine import Machine

LOOPBACK = "127.0.0.1"
_NO_GPU = {"NVIDIA_VISIBLE_DEVICES": "void"}  # HW-02

log = logging.getLogger("byoa.docker")


@dataclass(frozen=True)
class Place:
    """Where a container is in the engine's networks."""

    network: str | None = None  # None: the default one, unless `host` says otherwise
    address: str | None = None  # in that network; None: the engine's choice
    publish: int | None = None  # the container's port that gets a free one on loopback
    host: dict[str, Any] = field(default_factory=dict)  # settings of names and name servers


def container_request(
    api: Any, machine: Machine, spec: ContainerSpec, image: Found, place: Place
) -> dict[str, Any]:
    """Arguments of `APIClient.create_container`, but for name and labels."""
    limits, lacks = machine.fit(spec.limits)
    if lacks:
        log.info("%s: this machine has less than the instance type: %s", spec.name, lacks)
    joined = None
    if place.network is not None:
        end = api.create_endpoint_config(
            aliases=[spec.host] if spec.host else None, ipv4_address=place.address
        )
        joined = api.create_networking_config({place.network: end})
    mode = {} if place.network is None else {"network_mode": place.network}
    published = {} if place.publish is None else {
        "port_bindings": {place.publish: (LOOPBACK, None)}
    }
    without = {} if limits.gpus else _NO_GPU
    return {
        "image": image.name,
        # None keeps the image's own: TRAIN-01 … TRAIN-03.
        "entrypoint": None if spec.entrypoint is None else list(spec.entrypoint),
        "command": list(spec.command) or None,
        "environment": [f"{name}={value}" for name, value in {
            **without, **spec.environment,
        }.items()],
        "hostname": spec.host,
        "ports": [place.publish] if published else None,
        "networking_config": joined,
        "host_config": api.create_host_config(
            **_bounds(limits), **_mount(machine, spec), **mode, **published, **place.host,
            # Podman keeps everything, and knows no such options.
            log_config=None if machine.podman else docker.types.LogConfig(**LOG_CONFIG),
        ),
        "healthcheck": {"test": ["NONE"]},  # the service does not run an image's own
        "use_config_proxy": False,  # nothing of the person's own settings comes in
    }


def _bounds(limits: Limits) -> dict[str, Any]:
    given: dict[str, Any] = {"shm_size": limits.shm_bytes}
    if limits.cpus is not None:
        given["nano_cpus"] = int(limits.cpus * 1e9)
    if limits.memory_bytes is not None:
        given["mem_limit"] = limits.memory_bytes
        given["memswap_limit"] = limits.memory_bytes  # no swap besides
    if limits.gpus:
        given["device_requests"] = [
            docker.types.DeviceRequest(count=limits.gpus, capabilities=[["gpu"]])
        ]
    return given


def _mount(machine: Machine, spec: ContainerSpec) -> dict[str, Any]:
    mounts = [docker.types.Mount(str(ROOT), str(spec.ml), type="bind")]
    for place, shown in spec.read_only.items():
        inside = ROOT / place.relative_to(spec.ml).as_posix()
        mounts.append(docker.types.Mount(str(inside), str(shown), type="bind", read_only=True))
    found: dict[str, Any] = {"mounts": mounts}
    if machine.selinux:
        found["security_opt"] = ["label=disable"]
    if machine.remapped:  # its root may not write here else
        found["userns_mode"] = "host"
    return found
