"""One container of the engine: its end, its signals, its output, and what it leaves.

A thread waits for the end, so that nobody asks again and again; the exit is told only when the log
is whole and the files under /opt/ml belong to the server's user.
"""

from __future__ import annotations

import logging
import re
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import docker.errors

from byoa.container.contract import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND
from byoa.container.errors import ByoaError
from byoa.container.supervisor import Exit
from byoa.local.runners.base import Container, Usage
from byoa.local.runners.docker_errors import BROKEN, answers, explanation, status
from byoa.local.runners.docker_logs import LogPump
from byoa.local.runners.docker_machine import Machine
from byoa.local.runners.docker_ownership import give_back
from byoa.local.runners.docker_usage import usage_of
from byoa.local.runners.engine import EngineUnavailable
from byoa.local.runners.listeners import ENGINE_DNS, Listener, listening

LOST_SECONDS = 30.0  # without an answer, until a container counts as lost; restarts take less
RETRY_SECONDS = 0.5
REMOVAL_SECONDS = 0.5  # of a container that is removed while it runs, from its end to its absence
NEVER_RUN = (EXIT_NOT_FOUND, EXIT_NOT_EXECUTABLE)

log = logging.getLogger("byoa.docker")

# Where a container's labels keep what the next server must know of it.
HOME, NAME, SERVER = "byoa.home", "byoa.name", "byoa.server"
LOG, OFFSET, ML, PORT, OWN_NETWORK, HELPER = (
    "byoa.log", "byoa.log-offset", "byoa.ml", "byoa.port", "byoa.own-network", "byoa.helper",
)


class DockerContainer(Container):
    """A container that was started, by this server or an earlier one; `state` is the engine's
    account of it (GET /containers/<id>/json). Nothing happens before `begin`."""

    def __init__(
        self,
        api: Any,
        machine: Machine,
        state: Mapping[str, Any],
        helper_labels: Mapping[str, str],
        forget: Callable[[DockerContainer], None],
    ) -> None:
        self._api = api
        self._machine = machine
        self._forget = forget
        self.id = str(state["Id"])
        labels: Mapping[str, str] = state["Config"]["Labels"]
        self.name = labels[NAME]
        self._helper_labels = {**helper_labels, HELPER: self.name}
        self._ml = Path(labels[ML])
        self._image = str(state["Config"]["Image"])
        self.own_network = labels.get(OWN_NETWORK)
        self._address = _address(state, labels)
        self._log_path = Path(labels[LOG])
        self._pump = LogPump(
            api, self.id, self._log_path, int(labels[OFFSET]), follow=not machine.podman
        )
        self._exit: Exit | None = None
        self._peak = 0  # of the memory that `usage` saw
        self._failure: ByoaError | None = None
        self._killed = False
        self._over = threading.Event()
        self._watcher = threading.Thread(
            target=self._watch, name=f"docker-wait-{self.name}", daemon=True
        )

    def begin(self, state: Mapping[str, Any]) -> None:
        """Follow it to its end; one that has ended already is complete on return."""
        if state["State"]["Status"] == "running":
            self._pump.start()
            self._watcher.start()
        else:
            self._end(state)

    def leave(self) -> None:
        """Follow it no more: it runs on, and the next server's log goes on where this one's is."""
        self._pump.leave()

    @property
    def handle(self) -> dict[str, Any]:
        return {"runner": "docker", "name": self.name}

    @property
    def address(self) -> tuple[str, int] | None:
        return self._address

    def listeners(self) -> list[Listener]:
        try:
            pid = self._api.inspect_container(self.id)["State"]["Pid"]
            tables = [Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6")]
        except (docker.errors.APIError, OSError, *BROKEN):  # ended, or in a virtual machine
            return []
        return [each for each in listening(tables) if each[0] != ENGINE_DNS]

    def wait(self, timeout: float) -> Exit | None:
        if not self._over.wait(max(0.0, timeout)):
            return None
        if self._failure is not None:
            raise self._failure
        return self._exit

    def terminate(self) -> None:
        self._signal("SIGTERM")

    def kill(self) -> None:
        self._killed = True
        self._signal("SIGKILL")

    def usage(self) -> Usage | None:
        try:
            found = usage_of(self._api.stats(self.id, stream=False, one_shot=True))
        except BROKEN:  # the watcher tells whether the engine comes back
            return None
        if found is not None:
            self._peak = max(self._peak, found.memory_bytes)
        return found

    def remove(self) -> None:
        try:
            if not self._over.is_set():
                self._api.kill(self.id, signal="SIGKILL")
                self._over.wait(10.0)
        except BROKEN as error:
            log.warning("container %s is not ended: %s", self.name, error)
        try:
            self._api.remove_container(self.id, v=True, force=True)
        except docker.errors.APIError as error:
            if status(error) not in (404, 409):  # gone, or on its way
                log.warning("container %s is not removed: %s", self.name, explanation(error))
        except BROKEN as error:
            log.warning("container %s is not removed: %s", self.name, error)
        self._forget(self)

    def _signal(self, name: str) -> None:
        try:
            self._api.kill(self.id, signal=name)
        except docker.errors.APIError as error:
            if status(error) not in (404, 409):  # gone, or ended
                raise ByoaError(
                    "DOCKER_REFUSED", f"{name} to {self.name}: {explanation(error)}"
                ) from error
        except BROKEN as error:
            # The watcher tells whether the engine comes back, and fails the wait if not.
            log.warning("%s does not reach container %s: %s", name, self.name, error)

    # --- the watcher's thread ---

    def _watch(self) -> None:
        try:
            state = self._await_end()
            self._end(state)
        except ByoaError as error:
            self._failure = error
        except Exception as error:  # a thread's exception has no other reader
            log.exception("container %s", self.name)
            self._failure = ByoaError("DOCKER_REFUSED", f"container {self.name}: {error}")
        if self._failure is not None:
            self._pump.abandon()
        self._over.set()

    def _await_end(self) -> Mapping[str, Any]:
        """The engine's account of the ended container; raises when the engine does not come back,
        or knows the container no more."""
        silent_since: float | None = None
        while True:
            try:
                self._api.wait(self.id)
                state: Mapping[str, Any] = self._api.inspect_container(self.id)
                if state["State"]["Status"] not in ("running", "paused"):
                    return self._unless_removed(state)
                silent_since = None
            except docker.errors.NotFound:
                raise ByoaError(
                    "CONTAINER_GONE",
                    f"somebody removed container {self.name} before its exit was read",
                    remedy="leave containers with the label byoa.home to byoa",
                ) from None
            except BROKEN as error:
                now = time.monotonic()
                silent_since = silent_since or now
                if now - silent_since > LOST_SECONDS:
                    raise EngineUnavailable(
                        f"the container engine has not answered for {LOST_SECONDS:.0f} s while"
                        f" container {self.name} ran: {error}",
                        remedy="start the engine and submit again",
                    ) from None
            time.sleep(RETRY_SECONDS if silent_since else 0.0)

    def _unless_removed(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Somebody else's removal is a SIGKILL first: only a moment later the container is gone."""
        if _exit(state["State"]).signal != signal.SIGKILL or self._killed:
            return state
        time.sleep(REMOVAL_SECONDS)
        found: Mapping[str, Any] = self._api.inspect_container(self.id)
        return found

    def _end(self, state: Mapping[str, Any]) -> None:
        """Complete what the container leaves, then tell its exit."""
        ended = replace(_exit(state["State"]), peak_rss_bytes=self._peak)
        if state["State"]["Status"] == "created":
            _tell_never_run(self._log_path, int(state["Config"]["Labels"][OFFSET]), state)
        else:
            self._pump.finish()
        with answers(f"to give back the files of {self.name}"):
            give_back(self._api, self._machine, self._ml, self._image, self._helper_labels)
        self._exit = ended
        self._over.set()


def _exit(state: Mapping[str, Any]) -> Exit:
    code = int(state["ExitCode"]) & 255
    number = code - 128 if 128 < code <= 128 + signal.NSIG - 1 else None
    started, finished = _epoch(state["StartedAt"]), _epoch(state["FinishedAt"])
    return Exit(
        code,
        number,
        bool(state.get("OOMKilled")),
        seconds=max(0.0, finished - started) if started > 0 else 0.0,
        moment=max(0.0, finished),
    )


_MOMENT = re.compile(r"(.+T\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)")


def _epoch(text: str) -> float:
    """Epoch seconds of the engine's time, which has nanoseconds; before 1970 there is none."""
    match = _MOMENT.fullmatch(text)
    if match is None:
        return 0.0
    whole, fraction, zone = match.groups()
    moment = datetime.fromisoformat(whole + ("+00:00" if zone == "Z" else zone)).timestamp()
    return moment + float(fraction or 0)


def _address(
    state: Mapping[str, Any], labels: Mapping[str, str]
) -> tuple[str, int] | None:
    """Where the container's port answers: published on loopback, or its own address where it is
    in a network that publishes nothing."""
    if PORT not in labels or state["State"]["Status"] == "created":
        return None
    port = int(labels[PORT])
    if OWN_NETWORK in labels:
        network = state["NetworkSettings"]["Networks"].get(labels[OWN_NETWORK]) or {}
        return (str(network["IPAddress"]), port) if network.get("IPAddress") else None
    published = (state["NetworkSettings"].get("Ports") or {}).get(f"{port}/tcp") or []
    for entry in published:
        return str(entry["HostIp"] or "127.0.0.1"), int(entry["HostPort"])
    return None


def _tell_never_run(path: Path, offset: int, state: Mapping[str, Any]) -> None:
    """Put why the program could not be run into the log, once (TRAIN-144, TRAP-01, TRAP-02)."""
    program = [*(state["Config"].get("Entrypoint") or ()), *(state["Config"].get("Cmd") or ())]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        if file.tell() <= offset:
            said = state["State"].get("Error") or "the engine gives no reason"
            file.write(f"byoa: {program[0]!r} cannot be run: {said}\n".encode())
