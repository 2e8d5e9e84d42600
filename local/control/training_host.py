"""One host of a training job: its /opt/ml, its container, its log stream, what it syncs to S3."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from byoa.container.contract import Layout
from byoa.container.supervisor import Exit
from byoa.local.control.channels_download import Share, download
from byoa.local.control.directory_sync import DirectorySync
from byoa.local.control.instance_groups import place_of
from byoa.local.control.log_follower import Event, LogFollower, cloudwatch, mirror_path
from byoa.local.control.training_container import container_spec, write_config
from byoa.local.control.training_record import HostEntry
from byoa.local.control.training_services import TrainingServices
from byoa.local.runners.base import Container
from byoa.local.storage.state import Row

GROUP = "/aws/sagemaker/TrainingJobs"


class TrainingHost:
    """`on_lines` is given what the container prints, in a thread of the host's own."""

    def __init__(
        self,
        services: TrainingServices,
        row: Row,
        name: str,
        layout: Layout,
        on_lines: Callable[[str, Sequence[Event]], None],
    ) -> None:
        self.name = name
        self.layout = layout
        self.container: Container | None = None
        self.exit: Exit | None = None
        self.ended = 0.0  # epoch seconds
        self._services = services
        self._caller, self._job = row.caller, row.name
        self._request = row.document["request"]
        self._on_lines = on_lines
        self._follower: LogFollower | None = None
        self._syncs: list[DirectorySync] = []

    # --- starting ---

    def prepare(self, row: Row, check_stop: Callable[[], None]) -> None:
        """Everything that the container finds when it starts; `check_stop` may raise between
        objects. Raises DownloadError."""
        image = self._request["AlgorithmSpecification"]["TrainingImage"]
        self.layout.create()
        write_config(self.layout, row, self.name, self._services.runner.interface(image))
        for channel in self._request.get("InputDataConfig", ()):
            place = place_of(self._request, channel, self.name)
            if place is not None:
                alone = {**self._request, "InputDataConfig": [channel]}
                download(self._services.buckets, alone, self.layout, check_stop, Share(*place))
        self._make_syncs()
        if "CheckpointConfig" in self._request:
            self._syncs[0].restore(check_stop)

    def adopt(self, entry: HostEntry) -> bool:
        """Take over the container that an earlier server started, where there is one."""
        self.container = self._services.runner.adopt({"name": entry.container})
        return self.container is not None

    def start(self, row: Row, entry: HostEntry, access: Mapping[str, str]) -> None:
        spec = container_spec(row, self.name, self.layout, self._log(entry), access)
        self.container = self._services.runner.start(spec)

    def follow(self, entry: HostEntry) -> None:
        """Hand on the container's lines, and sync its directories, from now on."""
        services, stream = self._services, entry.stream

        def lines(events: Sequence[Event]) -> None:
            self._on_lines(self.name, events)

        self._follower = LogFollower(
            self._log(entry),
            cloudwatch(services.logs, self._caller, GROUP, stream), lines,
        )
        self._follower.start()
        if not self._syncs:  # an adopted container's
            self._make_syncs()
            for sync in self._syncs:
                sync.resume()
        for sync in self._syncs:
            sync.start()

    # --- the end ---

    def wait(self, timeout: float) -> bool:
        """Whether the container has ended; `exit` and `ended` tell how and when."""
        if self.exit is None and self.container is not None:
            self.exit = self.container.wait(timeout)
            if self.exit is not None:
                self.ended = self.exit.moment or time.time()
        return self.exit is not None

    @property
    def failed(self) -> bool:
        return self.exit is not None and self.exit.code != 0

    def finish_log(self) -> None:
        """Only now is the last line in the log service; to be called when the container ended."""
        if self._follower is not None:
            self._follower.finish()

    def finish_syncs(self) -> None:
        """Upload what has changed since; raises ByoaError or OSError."""
        for sync in self._syncs:
            sync.finish()

    def let_go(self) -> None:
        """End the threads; the container and the files stay as they are."""
        for sync in self._syncs:
            sync.abandon()
        self.finish_log()

    # --- within ---

    def _log(self, entry: HostEntry) -> Path:
        return mirror_path(self._services.settings.home, self._caller, GROUP, entry.stream)

    def _make_syncs(self) -> None:
        buckets, checkpoints = self._services.buckets, self._request.get("CheckpointConfig")
        if checkpoints:
            path = self.layout.inside(checkpoints["LocalPath"])
            self._syncs.append(DirectorySync(buckets, checkpoints["S3Uri"], path))
        board = self._request.get("TensorBoardOutputConfig")
        if board:
            uri = f"{board['S3OutputPath'].rstrip('/')}/{self._job}/tensorboard-output"
            path = self.layout.inside(board["LocalPath"])
            path.mkdir(parents=True, exist_ok=True)
            self._syncs.append(DirectorySync(buckets, uri, path))
