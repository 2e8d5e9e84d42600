"""One host of a training job: its /opt/ml, its container, its log stream, what it syncs to S3."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from byoa.container.contract import Layout
from byoa.container.supervisor import Exit
from byoa.local.control.channel_pipes import ChannelPipes
from byoa.local.control.channel_sources import DownloadError, Share
from byoa.local.control.channels_download import download, read_only_channels
from byoa.local.control.directory_sync import DirectorySync
from byoa.local.control.instance_groups import place_of
from byoa.local.control.log_follower import (
    Event,
    LogFollower,
    begin,
    cloudwatch,
    mirror_path,
    tail,
)
from byoa.local.control.pipe_feed import Interrupted
from byoa.local.control.training_container import container_spec, write_config
from byoa.local.control.training_output import synced_places
from byoa.local.control.training_record import HostEntry
from byoa.local.control.training_services import TrainingServices
from byoa.local.runners.base import Container, Warm
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
        # The request with the channels that this host gets (TRAIN-101).
        self._own = {**self._request, "InputDataConfig": [
            channel for channel in self._request.get("InputDataConfig", ())
            if place_of(self._request, channel, name) is not None
        ]}
        self._pipes = ChannelPipes(services.buckets, self._own, layout, self._share)

    # --- starting ---

    def prepare(self, row: Row, check_stop: Callable[[], None]) -> None:
        """Everything that the container finds when it starts; `check_stop` may raise between
        objects. Raises DownloadError."""
        services = self._services
        image = self._request["AlgorithmSpecification"]["TrainingImage"]
        self.layout.create()
        write_config(self.layout, row, self.name, services.runner.interface(image))
        download(
            services.buckets, self._own, self.layout, check_stop, self._share,
            shown=services.runner.shows_read_only(image),
        )
        self._pipes.prepare()
        self._make_syncs()
        if "CheckpointConfig" in self._request:
            self._syncs[0].restore(check_stop)

    def adopt(self, entry: HostEntry) -> bool:
        """Take over the container that an earlier server started, where there is one."""
        self.container = self._services.runner.adopt({"name": entry.container})
        return self.container is not None

    def start(
        self, row: Row, entry: HostEntry, access: Mapping[str, str], warm: Warm | None = None
    ) -> None:
        spec = container_spec(row, self.name, self.layout, self._log(entry), access)
        shown = read_only_channels(self._own, self.layout)
        self.container = self._services.runner.start(replace(spec, read_only=shown), warm)

    def begin_log(self, entry: HostEntry, note: str | None) -> None:
        """Put a line of byoa's own before the container's first, if it has printed none yet."""
        begin(self._log(entry), note)

    def follow(self, entry: HostEntry) -> None:
        """Hand on the container's lines, feed its pipes and sync its directories, from now on."""
        self._pipes.start()
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
                self._pipes.end()
                self.ended = self.exit.moment or time.time()
        return self.exit is not None

    @property
    def failed(self) -> bool:
        return self.exit is not None and self.exit.code != 0

    @property
    def data_failure(self) -> DownloadError | Interrupted | None:
        """Why the container does not get the rest of its data."""
        return self._pipes.failure

    @property
    def lost(self) -> bool:
        """Whether it did not end by itself: what ran it is gone."""
        return self.container is not None and self.container.lost

    def finish_log(self) -> None:
        """Only now is the last line in the log service; to be called when the container ended."""
        if self._follower is not None:
            self._follower.finish()

    def last_line(self, entry: HostEntry) -> str:
        """The last that it printed; empty where it printed nothing."""
        return tail(self._log(entry), 1)

    def finish_syncs(self) -> list[str]:
        """Upload what has changed since; what was left out. Raises ByoaError or OSError."""
        return [note for sync in self._syncs for note in sync.finish()]

    def tell(self, entry: HostEntry, lines: Sequence[str]) -> None:
        """Add lines of byoa's own to the log of a host that has ended."""
        path = self._log(entry)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
            begin = b"\n" if file.read(1) not in (b"", b"\n") else b""
            file.write(begin + "".join(f"{line}\n" for line in lines).encode())
        now = time.time()
        self._services.logs.append(
            self._caller, GROUP, entry.stream, [(now, line) for line in lines]
        )

    def let_go(self) -> None:
        """End the threads; the container and the files stay as they are."""
        self._pipes.close()
        for sync in self._syncs:
            sync.abandon()
        self.finish_log()

    # --- within ---

    def _share(self, channel: Mapping[str, Any]) -> Share:
        """Its share of a channel that it gets."""
        place = place_of(self._request, channel, self.name)
        return Share() if place is None else Share(*place)

    def _log(self, entry: HostEntry) -> Path:
        return mirror_path(self._services.settings.home, self._caller, GROUP, entry.stream)

    def _make_syncs(self) -> None:
        buckets, checkpoints = self._services.buckets, self._request.get("CheckpointConfig")
        real = Layout(self.layout.root.resolve())
        if checkpoints:
            path = real.inside(checkpoints["LocalPath"])
            self._syncs.append(DirectorySync(buckets, checkpoints["S3Uri"], path))
        for place in synced_places(self._request, self._job):
            path = real.inside(place.path)
            path.mkdir(parents=True, exist_ok=True)
            self._syncs.append(DirectorySync(buckets, place.uri, path, deletes=place.deletes))
