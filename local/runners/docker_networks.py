"""The engine's networks: one for the hosts of a job, and one for an isolated server.

An isolated network leads nowhere: no route, no name of the outside, not even this machine.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import threading
from typing import Any

import docker.errors
import docker.types

from byoa.container.errors import ByoaError
from byoa.local.runners.docker_errors import answers, explanation
from byoa.local.runners.docker_machine import Machine

# Without an address of the bridge the containers cannot reach this machine's own servers, which an
# internal network of Docker's leaves open.
_NO_GATEWAY = {"com.docker.network.bridge.inhibit_ipv4": "true"}
# The engine's name server asks the host's for names that it does not know, from inside an isolated
# network as well; at this address nobody answers.
NO_DNS = ["127.0.0.1"]
NO_DNS_OPTIONS = ["timeout:1", "attempts:1"]

FIXED = "byoa.fixed"  # the label of a network whose containers may ask for addresses
_ATTEMPTS = 5  # to make a network again in the subnet that the engine chose, if others are quick

log = logging.getLogger("byoa.docker")


class DockerNetworks:
    """Networks by name; whoever comes first makes one."""

    def __init__(self, api: Any, machine: Machine) -> None:
        self._api = api
        self._machine = machine
        self._lock = threading.Lock()

    def ensure(
        self, name: str, labels: dict[str, str], *, isolated: bool, reachable: bool = False,
        fixed: bool = False,
    ) -> None:
        """Make the network unless it is there. In an isolated one this machine reaches the
        containers only where it is `reachable`, and they reach this machine's address in it.
        In a `fixed` one containers may be given addresses."""
        # The engine allows two networks of one name: only one thread at a time looks and makes.
        with self._lock, answers(f"network {name}"):
            if self._find(name) is not None:
                return
            sealed = isolated and not reachable and not self._machine.podman
            settings = {
                "driver": "bridge", "internal": isolated, "labels": labels,
                "options": _NO_GATEWAY if sealed else {},
            }
            try:
                self._api.create_network(name, **settings)
                if fixed and not self._machine.podman:
                    self._fix(name, settings)
            except docker.errors.APIError as error:
                raise ByoaError(
                    "DOCKER_NETWORK",
                    f"the network {name} cannot be made: {explanation(error)}",
                    remedy="remove networks that nothing uses: `byoa prune`, then"
                    " `docker network prune`",
                ) from None

    def _fix(self, name: str, settings: dict[str, Any]) -> None:
        """Make the network again in its own subnet: the engine gives addresses that are asked for
        only where the subnet was asked for, too, and knows best which one is free."""
        for _ in range(_ATTEMPTS):
            found = self._find(name)
            subnet = None if found is None else _subnet(found)
            if subnet is None:
                return
            pool = docker.types.IPAMPool(subnet=str(subnet))
            ipam = docker.types.IPAMConfig(pool_configs=[pool])
            self._api.remove_network(name)
            again = {**settings, "labels": {**settings["labels"], FIXED: "true"}}
            try:
                self._api.create_network(name, ipam=ipam, **again)
                return
            except docker.errors.APIError:  # somebody else has it now
                self._api.create_network(name, **settings)

    def addresses(self, name: str, hosts: tuple[str, ...]) -> dict[str, str]:
        """Each host's address in a `fixed` network; none where the engine gives what it likes."""
        found = self._find(name)
        if found is None or FIXED not in found["Labels"]:
            return {}
        subnet = _subnet(found)
        if subnet is None or subnet.num_addresses < len(hosts) + 3:
            return {}
        # The first is the gateway's.
        return {host: str(subnet[number]) for number, host in enumerate(hosts, 2)}

    def remove(self, name: str) -> None:
        """Remove a network; one that is gone, or still in use, is left."""
        with self._lock, contextlib.suppress(docker.errors.NotFound):
            try:
                self._api.remove_network(name)
            except docker.errors.NotFound:
                pass
            except docker.errors.APIError as error:
                log.warning("network %s is not removed: %s", name, explanation(error))

    def named(self, label: str) -> list[dict[str, Any]]:
        """The networks that carry the label ("key=value")."""
        found: list[dict[str, Any]] = self._api.networks(filters={"label": [label]})
        return found

    def gateway(self) -> str | None:
        """This machine's address in the network that containers have by default."""
        for found in self._api.networks():
            if found["Name"] not in ("bridge", "podman"):
                continue
            for entry in (found.get("IPAM") or {}).get("Config") or ():
                subnet = ipaddress.ip_network(entry["Subnet"])
                if subnet.version == 4:  # a default bridge does not tell its own: it is the first
                    return str(entry.get("Gateway") or next(subnet.hosts()))
        return None

    def _find(self, name: str) -> dict[str, Any] | None:
        found = self._api.networks(names=[name])  # matches parts of names, too
        return next((each for each in found if each["Name"] == name), None)


def _subnet(network: dict[str, Any]) -> ipaddress.IPv4Network | None:
    for entry in (network.get("IPAM") or {}).get("Config") or ():
        subnet = ipaddress.ip_network(entry["Subnet"])
        if isinstance(subnet, ipaddress.IPv4Network):
            return subnet
    return None
