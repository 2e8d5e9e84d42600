"""The hosts of a training job as one: prepared, started, watched and ended together."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from byoa.container.contract import Layout
from byoa.container.errors import ByoaError
from byoa.local.control import attempts
from byoa.local.control.channel_sources import DownloadError
from byoa.local.control.instance_groups import hosts_of
from byoa.local.control.log_follower import Event
from byoa.local.control.pipe_feed import Interrupted
from byoa.local.control.training_container import container_name, network_of
from byoa.local.control.training_host import TrainingHost
from byoa.local.control.training_record import (
    HostEntry,
    host_entries,
    host_layout,
    set_host_entries,
)
from byoa.local.control.training_services import TrainingServices
from byoa.local.runners.base import Warm
from byoa.local.storage.state import Row

KILL_SECONDS = 10.0  # from SIGKILL to the end

log = logging.getLogger(__name__)


class TrainingCluster:
    """One host is the usual case, and no special one."""

    def __init__(
        self,
        services: TrainingServices,
        row: Row,
        directory: Path,
        on_lines: Callable[[str, Sequence[Event]], None],
    ) -> None:
        self._services = services
        self._network = network_of(row)
        self.hosts = [
            TrainingHost(services, row, name, host_layout(row, directory, name), on_lines)
            for name in hosts_of(row.document["request"])
        ]

    @property
    def layouts(self) -> dict[str, Layout]:
        return {host.name: host.layout for host in self.hosts}

    # --- starting ---

    def prepare(self, row: Row, check_stop: Callable[[], None]) -> None:
        for host in self.hosts:
            host.prepare(row, check_stop)

    def adopt(self, row: Row) -> int:
        """Take over the containers that an earlier server started; their number."""
        entries = host_entries(row)
        return sum(host.adopt(entries[host.name]) for host in self.hosts if host.name in entries)

    def name_hosts(self, row: Row) -> None:
        """Write down what is going to run, so that another server finds it."""
        moment = attempts.stream_moment(row)
        set_host_entries(row, {
            host.name: HostEntry(
                container_name(row, host.name), f"{row.name}/{host.name}-{moment}"
            )
            for host in self.hosts
        })

    def start(self, row: Row, warm: dict[str, Warm]) -> None:
        """Start the hosts that do not run yet; what `warm` has ready for them is theirs."""
        entries, services = host_entries(row), self._services
        image = row.document["request"]["AlgorithmSpecification"]["TrainingImage"]
        access = services.environment(row.caller, image)
        for host in self.hosts:
            if host.container is None:
                host.start(row, entries[host.name], access, warm.pop(host.name, None))

    def begin_log(self, row: Row, note: str | None) -> None:
        """Put a line of byoa's own before the first host's first, in the job's first attempt."""
        if "former_hosts" not in row.document:
            first = self.hosts[0]
            first.begin_log(host_entries(row)[first.name], note)

    def follow(self, row: Row) -> None:
        entries = host_entries(row)
        for host in self.hosts:
            host.follow(entries[host.name])

    # --- the end ---

    def wait(self, timeout: float) -> bool:
        """Whether all hosts have ended. Returns early when one does."""
        running = [host for host in self.hosts if host.exit is None]
        for host in running:  # each has its share of the time
            if host.wait(timeout / len(running)):
                timeout = 0.0
        return all(host.exit is not None for host in self.hosts)

    @property
    def failure(self) -> TrainingHost | None:
        """The host that failed first; those that were stopped for it came later (TRAIN-145)."""
        failed = [host for host in self.hosts if host.failed]
        return min(failed, key=lambda host: host.ended, default=None)

    @property
    def data_failure(self) -> DownloadError | Interrupted | None:
        """Why a host does not get the rest of its data: what it has made of it is worth nothing."""
        found = (host.data_failure for host in self.hosts)
        return next((each for each in found if each is not None), None)

    def terminate(self) -> None:
        for host in self._running():
            if host.container is not None:
                host.container.terminate()

    def kill(self) -> None:
        """SIGKILL to all; raises RuntimeError where one does not end."""
        for host in self._running():
            if host.container is not None:
                host.container.kill()
        deadline = time.monotonic() + KILL_SECONDS
        while not self.wait(max(0.0, deadline - time.monotonic())):
            if time.monotonic() >= deadline:
                names = ", ".join(host.name for host in self._running())
                raise RuntimeError(
                    f"the container of {names} does not end {KILL_SECONDS} s after SIGKILL"
                )

    def finish_logs(self) -> None:
        for host in self.hosts:
            host.finish_log()

    def tell(self, row: Row, lines: Sequence[str]) -> None:
        """Add lines of byoa's own to the first host's log, when all have ended."""
        first = self.hosts[0]
        first.tell(host_entries(row)[first.name], lines)

    def finish_syncs(self) -> list[str]:
        """Upload what has changed since; what was left out. Raises ByoaError or OSError."""
        return [note for host in self.hosts for note in host.finish_syncs()]

    def let_go(self) -> None:
        """End the threads; containers and files stay as they are."""
        for host in self.hosts:
            host.let_go()

    def remove(self) -> None:
        """End and forget the containers and what they shared; the files stay."""
        for host in self.hosts:
            if host.container is not None:
                try:
                    if host.container.wait(0) is None:
                        host.container.kill()
                        host.container.wait(KILL_SECONDS)
                except ByoaError as error:  # nobody can ask about it any more
                    log.warning("%s of %s: %s", host.name, self._network.name, error)
                host.container.remove()
        try:
            self._services.runner.release(self._network)
        except ByoaError as error:
            log.warning("%s is not released: %s", self._network.name, error)

    def _running(self) -> list[TrainingHost]:
        return [host for host in self.hosts if host.exit is None]
