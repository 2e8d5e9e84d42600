"""A box that is a container of the engine, started as the service starts one.

Every container carries labels by which what a killed checker left is found.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from pathlib import Path
from typing import Any

from byoa.container.contract import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, ROOT
from byoa.container.errors import ByoaError
from byoa.container.supervisor import Exit
from byoa.local.check import proc
from byoa.local.check.box import Box, BoxSpec, Process
from byoa.local.check.image_facts import LABEL, labels
from byoa.local.check.reclaim import reclaim
from byoa.local.runners.listeners import listening

LOOPBACK = "127.0.0.1"
ADDRESS_SECONDS = 5.0  # that the engine may take to publish a port
KILLED_SECONDS = 2.0  # that a killed process may take to be gone
ENGINE_LOST = 255
STOPPED_SECONDS = 10.0  # from SIGKILL to the end that the engine reports
DELETED = 2  # a kind of change in the engine's list of them


class DockerBox(Box):
    """A container, its log drained and its end awaited by one thread."""

    def __init__(
        self, engine: Any, image: str, spec: BoxSpec, *, owner: str,
        files_to: tuple[int, int] | None = None,
    ) -> None:
        """`owner` is the label; what it writes to /opt/ml becomes `files_to`'s when it has ended.
        """
        self.spec = spec
        self._engine = engine
        self._api = engine.api
        self._files_to = files_to
        self._log = bytearray()
        self._ended = threading.Event()
        self._exit = Exit(ENGINE_LOST)
        self._started = time.monotonic()
        self._stream: Any = None
        self._thread: threading.Thread | None = None
        self._removed = False
        self.id = _create(engine, image, spec, owner)
        try:
            self._start()
        except BaseException:
            self.remove()
            raise

    def _start(self) -> None:
        from docker.errors import APIError

        # Attached before the start, so that not one byte of the output is lost.
        self._stream = self._api.attach(self.id, stdout=True, stderr=True, stream=True, logs=True)
        try:
            self._api.start(self.id)
        except APIError as error:
            self._never_ran(str(error.explanation or error))
            return
        self._thread = threading.Thread(target=self._watch, name=f"box-{self.id[:12]}", daemon=True)
        self._thread.start()

    def _never_ran(self, message: str) -> None:
        """The first program did not start: the same exit codes as `docker run` and the service."""
        _close(self._stream)
        code = self._inspect()["State"].get("ExitCode") or 0
        if code not in (0, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND):
            raise ByoaError(  # its network, a mount: nothing that the image could help
                "CHECK_CONTAINER", f"the engine cannot start a container: {message}"
            )
        if not code:
            denied = "permission denied" in message or "exec format error" in message
            code = EXIT_NOT_EXECUTABLE if denied else EXIT_NOT_FOUND
        self._log += message.encode() + b"\n"
        self._exit = Exit(code)
        self._ended.set()

    def _watch(self) -> None:
        try:
            with contextlib.suppress(Exception):  # a lost stream must not hide the exit
                for chunk in self._stream:
                    self._log += chunk
            self._api.wait(self.id, timeout=None)
            if self._files_to is not None:
                reclaim(self._engine, self.id, self._files_to)
            state = self._inspect()["State"]
            code = int(state["ExitCode"]) % 256
            self._exit = Exit(
                code,
                signal=code - 128 if 128 < code <= 128 + signal.NSIG else None,
                out_of_memory=bool(state.get("OOMKilled")),
                seconds=time.monotonic() - self._started,
            )
        except Exception as error:  # removed under our hands, or the engine went away
            self._log += f"(the engine no longer tells: {error})\n".encode()
        finally:
            self._ended.set()

    def _inspect(self) -> dict[str, Any]:
        document: dict[str, Any] = self._api.inspect_container(self.id)
        return document

    @property
    def address(self) -> tuple[str, int] | None:
        if self.spec.port is None:
            return None
        until = time.monotonic() + ADDRESS_SECONDS
        while True:
            settings = self._inspect()["NetworkSettings"]
            found = (settings["Ports"] or {}).get(f"{self.spec.port}/tcp")
            if found:
                return LOOPBACK, int(found[0]["HostPort"])
            joined = (settings["Networks"] or {}).get(self.spec.network) or {}
            if self.spec.network != "bridge" and joined.get("IPAddress"):
                return joined["IPAddress"], self.spec.port  # an isolated network publishes nothing
            if self._ended.is_set() or time.monotonic() > until:
                return LOOPBACK, 0  # nothing answers there: the box has ended
            time.sleep(0.02)

    @property
    def log(self) -> str:
        return bytes(self._log).decode("utf-8", "replace")

    def wait(self, timeout: float) -> Exit | None:
        return self._exit if self._ended.wait(timeout) else None

    def terminate(self) -> None:
        self._signal("SIGTERM")

    def kill(self) -> None:
        self._signal("SIGKILL")

    def _signal(self, name: str) -> None:
        from docker.errors import APIError

        with contextlib.suppress(APIError):  # it has ended already
            self._api.kill(self.id, name)

    def processes(self) -> list[Process]:
        from docker.errors import APIError

        try:
            table = self._api.top(self.id, ps_args="-eo pid,ppid,args")
        except APIError:
            return []
        rows = [(int(row[0]), int(row[1]), row[2]) for row in table["Processes"] or []]
        known = {pid for pid, _, _ in rows}
        rows.sort(key=lambda row: (row[1] in known, row[0]))  # the first one's parent is outside
        return [
            Process(pid, ppid, proc.argv(pid) or tuple(text.split())) for pid, ppid, text in rows
        ]

    def kill_process(self, process: Process) -> bool:
        if proc.kill(process):
            return True
        inner = proc.inner_number(process.pid)
        if inner is None or proc.argv(process.pid) != process.argv:
            return False
        self._inside("kill", "-9", str(inner))
        until = time.monotonic() + KILLED_SECONDS
        while proc.argv(process.pid) == process.argv:
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def listeners(self) -> list[tuple[str, int]]:
        if self._ended.is_set():
            return []
        pid = self._inspect()["State"]["Pid"]
        tables = [f"/proc/{pid}/net/tcp", f"/proc/{pid}/net/tcp6"]
        try:
            return listening([Path(each).read_text() for each in tables])
        except OSError:  # the engine is in a virtual machine: look from inside
            return listening([self._inside("cat", "/proc/net/tcp"),
                              self._inside("cat", "/proc/net/tcp6")])

    def changes(self) -> list[str]:
        found = self._api.diff(self.id) or []
        return [each["Path"] for each in found if each["Kind"] != DELETED]

    def _inside(self, *argv: str) -> str:
        """Output of a program in the running container; empty where it cannot be run."""
        from docker.errors import APIError

        try:
            run = self._api.exec_create(self.id, list(argv), stderr=False)
            return bytes(self._api.exec_start(run["Id"])).decode("utf-8", "replace")
        except APIError:
            return ""

    def remove(self) -> None:
        from docker.errors import NotFound

        if self._removed:
            return
        if self._thread is not None and not self._ended.is_set():
            self.kill()
            self._ended.wait(STOPPED_SECONDS)  # its files are given back in between
        with contextlib.suppress(NotFound):
            self._api.remove_container(self.id, force=True, v=True)
        self._removed = True
        if self._thread is not None:
            self._thread.join(10.0)
        if self._stream is not None:
            _close(self._stream)


def _create(engine: Any, image: str, spec: BoxSpec, owner: str) -> str:
    from docker.errors import APIError

    api = engine.api
    binds = [f"{spec.ml}:{ROOT}:rw"]
    if spec.read_only_model:
        binds.append(f"{spec.ml / 'model'}:{ROOT / 'model'}:ro")
    if spec.read_only_data:
        binds.append(f"{spec.ml / 'input' / 'data'}:{ROOT / 'input' / 'data'}:ro")
    binds += [f"{path}:{inside}:rw" for inside, path in spec.mounts.items()]
    own = spec.network not in ("bridge", "none")
    port = spec.port
    host = api.create_host_config(
        binds=binds,
        network_mode=spec.network,
        port_bindings=None if port is None else {f"{port}/tcp": (LOOPBACK, None)},
        read_only=spec.read_only,
        tmpfs={"/tmp": ""} if spec.read_only else None,  # noqa: S108 - a path in the container
        mem_limit=spec.memory_bytes,
        memswap_limit=spec.memory_bytes,
        shm_size=spec.shm_bytes,
        init=False,
    )
    networking = None
    if own:
        networking = api.create_networking_config(
            {spec.network: api.create_endpoint_config(aliases=[spec.host] if spec.host else None)}
        )
    try:
        created = api.create_container(
            image,
            command=list(spec.command),
            entrypoint=None if spec.entrypoint is None else list(spec.entrypoint),
            environment=dict(spec.environment),
            ports=None if port is None else [(port, "tcp")],
            user=spec.user,
            hostname=spec.host,
            tty=False,
            stdin_open=False,
            host_config=host,
            networking_config=networking,
            labels=labels(owner),
        )
    except APIError as error:
        raise ByoaError(
            "CHECK_CONTAINER", f"no container of {image} can be made: {error.explanation}"
        ) from None
    return str(created["Id"])


def _close(stream: Any) -> None:
    """End a stream of the engine; its own `close` leaves the answer, and so the socket, open."""
    answer = stream._response
    with contextlib.suppress(OSError):
        stream.close()
    answer.close()


def sweep(engine: Any, owner: str) -> None:
    """Remove every container and network that carries a trial's label."""
    from docker.errors import NotFound

    filters = {"label": f"{LABEL}={owner}"}
    for each in engine.api.containers(all=True, filters=filters):
        with contextlib.suppress(NotFound):
            engine.api.remove_container(each["Id"], force=True, v=True)
    for each in engine.api.networks(filters=filters):
        engine.api.remove_network(each["Id"])
