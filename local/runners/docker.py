"""Containers by the engine's API: any image, as the service runs it (TRAIN-01 … TRAIN-03, HOST-01).

Names in the engine begin with the state directory's digest, and everything carries labels, so that
several servers share an engine and the next one finds what an earlier one left.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import re
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import docker.errors

from byoa.container.contract import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND
from byoa.container.errors import ByoaError, UnsupportedError
from byoa.local.runners import docker_container as known
from byoa.local.runners import engine
from byoa.local.runners.base import Container, ContainerSpec, Network, Runner, Warm
from byoa.local.runners.docker_container import NEVER_RUN, DockerContainer
from byoa.local.runners.docker_errors import answers, explanation
from byoa.local.runners.docker_images import DockerImages
from byoa.local.runners.docker_machine import Machine
from byoa.local.runners.docker_networks import NO_DNS, NO_DNS_OPTIONS, DockerNetworks
from byoa.local.runners.docker_request import LOOPBACK, Place, container_request

_CANNOT_RUN = re.compile(
    'exec: ".*(?:not found|no such file|is a directory|(?P<denied>permission denied|format error))',
    re.IGNORECASE,
)
HOST_NAME = "host.docker.internal"  # of this machine, where an address does not lead to it

log = logging.getLogger("byoa.docker")


class DockerRunner(Runner):
    """Runs any image of the engine. `listen` makes this server answer on one more address, too,
    and returns the port. Without an engine each call raises EngineUnavailable."""

    name = "docker"

    def __init__(
        self,
        home: Path,
        *,
        registry: str = "",
        labels: Mapping[str, str] | None = None,
        listen: Callable[[str], int] | None = None,
        connect: Callable[[], Any] = engine.connect,
    ) -> None:
        self._home = str(Path(home).absolute())
        self._prefix = f"byoa-{hashlib.sha256(self._home.encode()).hexdigest()[:8]}-"
        self._server = uuid.uuid4().hex
        self._registry = registry
        self._labels = {known.HOME: self._home, known.SERVER: self._server, **(labels or {})}
        self._listen = listen
        self._connect = connect
        self._lock = threading.RLock()
        self._client: Any = None
        self._containers: dict[str, DockerContainer] = {}
        self._door: tuple[str, int] | None = None  # where containers reach this server
        self._no_door = False

    def connect(self) -> None:
        """Look for the engine now; raises EngineUnavailable."""
        with self._lock:
            if self._client is not None:
                return
            client = self._connect()
            try:
                api = client.api
                with answers("to describe itself"):
                    version = api.version()
                    self._machine = Machine.of(api.info(), version)
                self._version = version["Version"]
                host = urlsplit(api.base_url).hostname or ""
                if api.base_url.startswith("http") and "+" not in api.base_url and host not in (
                    "localhost", LOOPBACK, "::1", "localunixsocket", "localnpipe",
                ):
                    raise engine.EngineUnavailable(
                        f"the engine at {host} is another machine, which cannot mount this one's"
                        " directories",
                        remedy="unset DOCKER_HOST, or name an engine of this machine",
                    )
            except BaseException:
                client.close()
                raise
            self._client = client
            self._images = DockerImages(api, self._machine, self._registry)
            self._networks = DockerNetworks(api, self._machine)

    def close(self) -> None:
        """Let go of the engine; containers run on."""
        with self._lock:
            for container in self._containers.values():
                container.leave()
            if self._client is not None:
                self._client.close()

    # --- the runner ---

    def check(
        self, image: str, *, isolated: bool = False, hosts: int = 1, serves: bool = False,
        program: Sequence[str] = (),
    ) -> None:
        self.connect()
        self._images.check(image)
        if isolated and serves and (self._machine.virtual or self._machine.rootless):
            raise UnsupportedError(
                "ISOLATION_UNAVAILABLE",
                "an isolated container that serves cannot be reached through this engine, whose"
                " containers have no address on this machine",
                expected="EnableNetworkIsolation false for a container that serves",
            )

    def check_pipes(self, image: str) -> None:
        self.connect()
        self._machine.check_pipes()

    def inside(self, image: str, url: str) -> str:
        self.connect()
        parts = urlsplit(url)
        host, port = self._open_door(parts.port or 80) or (HOST_NAME, parts.port or 80)
        return f"{parts.scheme}://{host}:{port}{parts.path}"

    def shuts_out(self, client: str) -> bool:
        """Whether an address is that of an isolated container, which may reach no server of ours:
        the network in which this machine reaches it leads here, too (TRAIN-12, HOST-08)."""
        with self._lock:
            return any(
                each.own_network is not None and each.address and each.address[0] == client
                for each in self._containers.values()
            )

    def describe(self) -> str:
        return self.engine

    @property
    def engine(self) -> str:
        """The engine's name and version."""
        self.connect()
        return f"{'Podman' if self._machine.podman else 'Docker'} {self._version}"

    def start(self, spec: ContainerSpec, warm: Warm | None = None) -> Container:
        if warm is not None:  # of a process, before the engine had the image
            warm.close()
        self.connect()
        image = self._images.fetch(spec.image)
        api, labels = self._client.api, self._labels_of(spec)
        with answers(f"to start {spec.name}"):
            self._claim(spec.name)
            made = api.create_container(
                name=self._prefix + spec.name, labels=labels,
                **container_request(api, self._machine, spec, image, self._place(spec, labels)),
            )
            try:
                api.start(made["Id"])
            except docker.errors.APIError as error:
                state = _never_run(api.inspect_container(made["Id"]), error)
                if state is None:
                    with contextlib.suppress(docker.errors.APIError):
                        api.remove_container(made["Id"], v=True, force=True)
                    self._remove_own(labels.get(known.OWN_NETWORK))
                    raise _refusal(spec, error) from error
            else:
                state = api.inspect_container(made["Id"])
        log.info("%s: %s runs %s (%s)", spec.name, self.engine, image.name, image.id[:19])
        return self._hold(state)

    def adopt(self, handle: Mapping[str, Any]) -> Container | None:
        self.connect()
        name = str(handle["name"])
        with self._lock:
            if name in self._containers:
                return self._containers[name]
        with answers(f"to look up {name}"):
            state = self._inspect(self._prefix + name)
            if state is None or state["Config"]["Labels"].get(known.HOME) != self._home:
                return None
            status = state["State"]["Status"]
            if status == "created" and state["State"]["ExitCode"] not in NEVER_RUN:
                # The server was killed before it came to start it.
                self._client.api.remove_container(state["Id"], v=True, force=True)
                return None
            if status in ("removing", "dead"):
                return None
        if status == "running" and self._listen is not None:
            self._open_door(80)  # it was told this address by the earlier server
        return self._hold(state)

    def release(self, network: Network) -> None:
        with self._lock:
            if self._client is None:
                return
        try:
            self._networks.remove(self._prefix + network.name)
        except Exception as error:  # the next server's sweep finds it
            log.warning("network %s is not removed: %s", network.name, error)

    # --- what is left behind ---

    def running(self) -> list[str]:
        """Names of this home's containers that run."""
        return [
            each["Labels"][known.NAME] for each in self._list()
            if each["State"] == "running" and known.NAME in each["Labels"]
        ]

    def orphans(self, keep: Callable[[str], bool]) -> list[str]:
        """Names of this home's containers and networks that are neither this server's nor kept:
        `keep` gets the name of a container, or of what a network was made for."""
        self.connect()
        return [name for name, _ in self._orphans(keep)]

    def sweep(self, keep: Callable[[str], bool]) -> list[str]:
        """Remove the orphans; their names."""
        self.connect()
        removed = []
        for name, remove in self._orphans(keep):
            try:
                remove()
            except docker.errors.APIError as error:
                log.warning("%s is not removed: %s", name, explanation(error))
                continue
            removed.append(name)
        return removed

    def _orphans(self, keep: Callable[[str], bool]) -> list[tuple[str, Callable[[], None]]]:
        api = self._client.api
        found: list[tuple[str, Callable[[], None]]] = []
        with answers("to list what is left"):
            for each in self._list():
                labels = each["Labels"]
                name = labels.get(known.NAME, each["Names"][0].lstrip("/"))
                if known.HELPER in labels and each["State"] == "running":
                    continue  # it ends by itself
                if labels.get(known.SERVER) != self._server and not keep(name):
                    remove = partial(api.remove_container, each["Id"], v=True, force=True)
                    found.append((name, remove))
            for network in self._networks.named(f"{known.HOME}={self._home}"):
                labels = network["Labels"]
                name = labels.get(known.NAME, network["Name"])
                if labels.get(known.SERVER) != self._server and not keep(name):
                    found.append((name, partial(self._networks.remove, network["Name"])))
        return found

    def _list(self) -> list[dict[str, Any]]:
        self.connect()
        with answers("to list containers"):
            found: list[dict[str, Any]] = self._client.api.containers(
                all=True, filters={"label": [f"{known.HOME}={self._home}"]}
            )
        return found

    # --- helpers ---

    def _hold(self, state: Mapping[str, Any]) -> DockerContainer:
        made = DockerContainer(
            self._client.api, self._machine, state, self._labels, self._let_go
        )
        with self._lock:
            # Two that follow one container would write each line twice.
            container = self._containers.setdefault(made.name, made)
        if container is made:
            container.begin(state)
        return container

    def _let_go(self, container: DockerContainer) -> None:
        with self._lock:
            if self._containers.get(container.name) is container:
                del self._containers[container.name]
        self._remove_own(container.own_network)

    def _remove_own(self, network: str | None) -> None:
        if network is not None:
            try:
                self._networks.remove(network)
            except Exception as error:
                log.warning("network %s is not removed: %s", network, error)

    def _inspect(self, name: str) -> dict[str, Any] | None:
        try:
            state: dict[str, Any] = self._client.api.inspect_container(name)
        except docker.errors.NotFound:
            return None
        return state

    def _claim(self, name: str) -> None:
        """Make the name free: what an ended container of it left goes."""
        state = self._inspect(self._prefix + name)
        if state is None:
            return
        if state["State"]["Status"] == "running":
            raise ByoaError(
                "CONTAINER_EXISTS",
                f"container {name!r} is running",
                expected="a name that no running container has",
            )
        with self._lock:
            self._containers.pop(name, None)
        self._client.api.remove_container(state["Id"], v=True, force=True)

    def _labels_of(self, spec: ContainerSpec) -> dict[str, str]:
        try:
            offset = spec.log.stat().st_size
        except FileNotFoundError:
            offset = 0
        labels = {
            **self._labels,
            known.NAME: spec.name,
            known.LOG: str(spec.log),
            known.OFFSET: str(offset),
            known.ML: str(spec.ml),
        }
        if spec.port is not None:
            labels[known.PORT] = str(spec.port)
            if spec.isolated:
                labels[known.OWN_NETWORK] = self._prefix + spec.name
        return labels

    def _place(self, spec: ContainerSpec, labels: dict[str, str]) -> Place:
        """Where the container is in the engine's networks; its own are made first."""
        network, address, publish = None, None, None
        host: dict[str, Any] = {}
        shared = spec.network if spec.network and len(spec.network.hosts) > 1 else None
        if spec.isolated:
            host = {"dns": NO_DNS, "dns_opt": NO_DNS_OPTIONS}
            if spec.port is not None:
                network = labels[known.OWN_NETWORK]
                self._networks.ensure(network, labels, isolated=True, reachable=True)
            elif shared is None:
                host = {"network_mode": "none"}
                if spec.host:
                    host["extra_hosts"] = {spec.host: LOOPBACK}
        else:
            publish = spec.port
            if self._no_door:
                host = {"extra_hosts": {HOST_NAME: "host-gateway"}}
        # One host needs no network of its own: the engine has few, and making one takes time.
        if shared is not None and network is None:
            network = self._prefix + shared.name
            self._networks.ensure(
                network, {**self._labels, known.NAME: shared.name}, isolated=shared.isolated,
                fixed=True,
            )
            # The engine knows a name only while its container runs; a peer may ask before or after.
            known_hosts = self._networks.addresses(network, shared.hosts)
            address = known_hosts.pop(spec.host or "", None)
            host["extra_hosts"] = {**host.get("extra_hosts", {}), **known_hosts}
        return Place(network, address, publish, host)

    def _open_door(self, port: int) -> tuple[str, int] | None:
        """Address and port at which containers reach this server; None where only a name may lead
        to it. `port` is where it listens for others."""
        with self._lock:
            if self._door is not None or self._no_door:
                return self._door
            if not (self._machine.virtual or self._machine.rootless):
                with answers("to describe its networks"):
                    gateway = self._networks.gateway()
                if gateway is not None:
                    try:
                        own = port if self._listen is None else self._listen(gateway)
                        self._door = (gateway, own)
                        return self._door
                    except OSError as error:
                        if error.errno != errno.EADDRNOTAVAIL:
                            raise
            # An address is better: with a name, boto3 puts the bucket's name before it.
            log.warning(
                "containers find this server by the name %s, if at all: their engine's network is"
                " not this machine's; start it with --host 0.0.0.0 if they must", HOST_NAME,
            )
            self._no_door = True
            return None


def _never_run(
    state: dict[str, Any], error: docker.errors.APIError
) -> dict[str, Any] | None:
    """The account of a container whose program cannot be run, with the code for that; None where
    the engine refuses for another reason (TRAIN-144)."""
    said = explanation(error)
    code = state["State"]["ExitCode"]  # Docker's; Podman tells in words alone
    if code not in NEVER_RUN:
        match = _CANNOT_RUN.search(said)
        if match is None:
            return None
        code = EXIT_NOT_EXECUTABLE if match["denied"] else EXIT_NOT_FOUND
    told = {"Status": "created", "ExitCode": code, "Error": said}
    return {**state, "State": {**state["State"], **told}}


def _refusal(spec: ContainerSpec, error: docker.errors.APIError) -> ByoaError:
    said = explanation(error)
    remedy = None
    if "bind source path does not exist" in said:
        remedy = "the engine must see this machine's directories; one in another machine does not"
    elif "could not select device driver" in said:
        remedy = "install the NVIDIA container toolkit, or take an instance type without GPUs"
    return ByoaError(
        "DOCKER_REFUSED", f"the engine does not start {spec.name}: {said}", remedy=remedy
    )
