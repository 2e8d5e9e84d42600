"""A script under torchrun, supervised: its processes' lines whole, its end told truthfully.

torchrun writes every process's output to files of its own, from which whole lines are read here;
the failure report is that of the process that failed first, not torchrun's own trace. A process
that dies ends the others, on the other hosts too.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from byoa.container import contract, launch, network_interface, preflight, script_failure
from byoa.container.contract import Layout, ResourceConfig
from byoa.container.errors import AlgorithmError, ContractError, PeerError, text_of
from byoa.container.hardware import oom_kills, size
from byoa.container.launch import MASTER_PORT, Launch
from byoa.container.peers import Peers, of_job
from byoa.container.rank_logs import RankLogs
from byoa.container.script_run import SUCCESS_FILE, Script, say
from byoa.container.supervisor import Exit, Supervisor

LOOK_SECONDS = 0.1
END_SECONDS = 5.0  # for the others, once a process has failed: their work is in vain
ALONE_SECONDS = 3.0  # for torchrun to end by itself after a stop, without a process left
VERDICT_SECONDS = 15.0  # for another host to say that its process failed first
# torchrun itself gives its processes 30 s after a failure; what it says as it begins:
_CLOSING = "closing signal"
_ROOT = re.compile(r"Root Cause.*?local_rank: (\d+)\).*?exitcode\s*: (-?\d+)", re.DOTALL)
# How a process ends because another one ended: by torchrun's signal, or by gloo's own abort; …
_FOLLOWING = (signal.SIGTERM, signal.SIGABRT)
# … and what it raises.
_CONSEQUENCE = re.compile(
    r"Dist(Backend|Network|Store)Error|gloo/|Connection (closed|reset) by peer|Broken pipe|NCCL"
    r"|SIGTERM"
)


def run(
    launched: Launch, layout: Layout, resources: ResourceConfig, script: Script,
    stopping: Callable[[], bool],
) -> int:
    """Run the script, whose argv begins with a Python, to its end; the exit code. Raises PeerError
    when another host failed."""
    if importlib.util.find_spec("torch") is None:
        raise AlgorithmError(
            "TORCH_MISSING", "torchrun needs torch, which is not installed",
            remedy="build the image with TORCH_VARIANT=cpu, or run without `distribution`",
        )
    taking_part = replace(resources, hosts=launched.hosts)
    peers = of_job(taking_part, stopping=stopping)
    try:
        if not preflight.check(taking_part, peers, say=say):
            say(f"stopped before {script.name} was started")
            return contract.EXIT_SIGTERM
        interface = network_interface.find(taking_part, say)
        port = _rendezvous(launched, peers, interface)
        variables = launch.environment(launched, resources, interface, port)
        script = replace(script, environment={**variables, **script.environment})
        code = _Job(launched, layout, script, peers, stopping).run(port)
    except PeerError:
        raise
    except BaseException as error:
        peers.fail(f"{type(error).__name__}: {text_of(error)}")
        raise
    finally:
        peers.close()
    return code


def _rendezvous(launched: Launch, peers: Peers, interface: str) -> int:
    """The port of torchrun's store on the first host, agreed with all: 7777 (DIST-02). Hosts that
    are processes of one machine share its ports with other jobs, so they take a free one."""
    port = MASTER_PORT
    if launched.rank == 0 and len(launched.hosts) > 1:
        own = network_interface.is_loopback(interface)
        try:
            with socket.create_server(("", 0 if own else port)) as tried:
                port = int(tried.getsockname()[1])
        except OSError as error:
            raise ContractError(
                "MASTER_PORT_TAKEN",
                f"{launched.master} cannot listen on port {port}: {error.strerror}",
                expected="the port free on the first host, where torchrun's processes meet",
                remedy="let the container start nothing else that listens there",
            ) from None
    return int(peers.broadcast(str(port).encode()))


class _Job:
    """torchrun on this host, from its start to the report of its end."""

    def __init__(
        self, launched: Launch, layout: Layout, script: Script, peers: Peers,
        stopping: Callable[[], bool],
    ) -> None:
        self.launched = launched
        self.layout = layout
        self.script = script
        self.peers = peers
        self.stopping = stopping
        self.said: deque[str] = deque(maxlen=200)  # by torchrun itself
        self.logs = Path()
        self.kill_at: float | None = None
        self.stop_sent = False
        self.alone_since = math.inf  # since when torchrun has had no process of the script
        self.was_alone = False  # and was ended for it
        self.lost = threading.Event()

    def run(self, port: int) -> int:
        logs = self.logs = Path(tempfile.mkdtemp(prefix="byoa-ranks-"))
        grace = contract.TRAINING_STOP_GRACE_SECONDS
        python, *script = self.script.argv
        argv = [
            python, "-m", "torch.distributed.run", *self.launched.arguments(port), *script,
        ]
        env = {
            **self.script.environment,
            "PET_REDIRECTS": "3", "PET_LOG_DIR": str(logs),
            "PET_SHUTDOWN_TIMEOUT": str(int(grace)),
        }
        killed_before = oom_kills() or 0
        supervisor = Supervisor(
            argv, env=env, cwd=self.script.directory, on_line=self._on_torchrun, stop_grace=grace
        )
        ranks = RankLogs(logs, say)
        self.peers.watch(lambda error: self.lost.set())
        try:
            supervisor.start()
            with ranks:
                ended = self._supervise(supervisor, grace)
            return self._conclude(ended, ranks, (oom_kills() or 0) - killed_before)
        finally:
            supervisor.kill()
            self._kill_workers()
            shutil.rmtree(logs, ignore_errors=True)

    def _supervise(self, supervisor: Supervisor, grace: float) -> Exit:
        """Wait for the end; pass on a stop, and end what must not go on."""
        while (ended := supervisor.wait(LOOK_SECONDS)) is None:
            if self.stopping() and not self.stop_sent:
                self.stop_sent, self.alone_since = True, time.monotonic()
                self._kill_within(grace)
                self._signal(supervisor)
            if self.lost.is_set() and self.kill_at is None:
                self._kill_within(END_SECONDS)
                self._signal(supervisor)
            if self.stop_sent and self.peers.size > 1 and self._alone(supervisor.pid):
                self.was_alone = True
                supervisor.kill()
            if self.kill_at is not None and time.monotonic() >= self.kill_at:
                self._kill_workers()
                supervisor.kill()
        return ended

    def _alone(self, pid: int) -> bool:
        """Whether torchrun has had no process left for a while: it waits for other hosts, which
        nobody can end by a signal."""
        now = time.monotonic()
        if children(pid):
            self.alone_since = now
        return now - self.alone_since > ALONE_SECONDS

    def _signal(self, supervisor: Supervisor) -> None:
        """SIGTERM to the script's processes alone: torchrun would hit their children as well, and
        take a process that saved and exited with 0 for a failure. Before it has any: to it."""
        workers = children(supervisor.pid)
        for pid in workers:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGTERM)
        if not workers:
            supervisor.send(signal.SIGTERM)

    def _kill_within(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.kill_at = end if self.kill_at is None else min(self.kill_at, end)

    def _kill_workers(self) -> None:
        """SIGKILL to torchrun's processes and theirs, each of which may lead a group of its own and
        outlive it; they are told by what only they have in their environment."""
        mark = f"PET_LOG_DIR={self.logs}".encode()
        for directory in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (directory / "environ").read_bytes().split(b"\0"):
                    os.kill(int(directory.name), signal.SIGKILL)

    def _on_torchrun(self, line: str) -> None:
        self.said.append(line)
        say(line)
        if _CLOSING in line and not self.stop_sent:
            self._kill_within(END_SECONDS)

    # --- the end ---

    def _conclude(self, ended: Exit, ranks: RankLogs, killed: int) -> int:
        if ended.code == 0:
            say(f"{self.script.name} ended in {ended.seconds:.2f} s on"
                 f" {self.launched.processes} process(es), peak memory of one"
                 f" {size(ended.peak_rss_bytes)}")
            (self.layout.output / SUCCESS_FILE).touch()
            return contract.EXIT_SUCCESS
        if self.stop_sent:
            say(self._stop_note())
            return contract.EXIT_SIGTERM
        local, code = self._root_cause(ranks)
        tail = list(ranks.tail(local)) if local is not None else list(self.said)
        printed = script_failure.last_exception(tail)
        shown = f"{printed.name}: {printed.message}" if printed else ""
        consequence = bool(_CONSEQUENCE.search(shown)) or -code in _FOLLOWING
        wait = VERDICT_SECONDS if consequence and self.peers.size > 1 else 0.0
        if (lost := self.peers.lost(wait)) is not None:
            raise lost
        if local is None:
            how, name = ended, "torchrun"
        else:
            number = -code if code < 0 else None
            how = replace(ended, code=code if number is None else 128 + number, signal=number,
                          out_of_memory=number == signal.SIGKILL and killed > 0)
            name = f"{self.script.name} (rank {self._global(local)})"
        text = script_failure.report(name, self.layout.code, how, tail, killed)
        self.peers.fail(text)
        print(text.splitlines()[0], file=sys.stderr, flush=True)
        if not self.layout.failure.exists():  # the script may have written its own (TK-09)
            contract.write_failure(self.layout, text)
        return contract.EXIT_FAILURE

    def _stop_note(self) -> str:
        name = self.script.name
        if self.was_alone:
            return f"{name} has ended here, and torchrun, which waited for the other hosts, with it"
        saved = any(self.layout.model.rglob("*"))
        cure = "" if saved else ": handle it to save the model before the end"
        return f"{name} was ended by SIGTERM{cure}"

    def _global(self, local: int) -> int:
        return self.launched.rank * self.launched.processes + local

    def _root_cause(self, ranks: RankLogs) -> tuple[int | None, int]:
        """The local rank that failed first, and its exit code, negative for a signal.

        torchrun names one. Those that fail within its tenth of a second are as one to it: so what
        another process raised takes precedence over what follows from the end of a peer.
        """
        named = _ROOT.search("\n".join(self.said))
        if named is None:
            return None, 1
        local, code = int(named[1]), int(named[2])
        for each in [local, *ranks.ranks]:
            if code < 0 and -code not in _FOLLOWING:
                break  # killed: it printed nothing
            printed = script_failure.last_exception(list(ranks.tail(each)))
            if printed and not _CONSEQUENCE.search(f"{printed.name}: {printed.message}"):
                # One that has raised may still abort while it shuts down: the exception counts.
                return each, code if each == local and -code not in _FOLLOWING else 1
        return local, code


def children(pid: int) -> set[int]:
    """The processes that `pid` has started and that run."""
    found = set()
    for name in os.listdir("/proc") if sys.platform == "linux" else ():
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == pid and fields[0] != "Z":
                    found.add(int(name))
    return found
