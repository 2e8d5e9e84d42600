"""The Pipe channels of one host, each fed by a thread of its own (TRAIN-96)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from byoa.container.contract import Layout
from byoa.container.errors import ByoaError
from byoa.local.control.channel_epochs import ChannelEpochs
from byoa.local.control.channel_sources import DownloadError, Share
from byoa.local.control.channels_download import pipe_records, write_manifest
from byoa.local.control.pipe_feed import Interrupted, PipeFeed
from byoa.local.control.pipe_fifos import Fifos
from byoa.local.control.training_request import input_mode
from byoa.local.storage.buckets import Buckets


class ChannelPipes:
    """Nothing exists before `prepare`, or `start` where an earlier server has prepared them."""

    def __init__(
        self, buckets: Buckets, request: Mapping[str, Any], layout: Layout,
        share: Callable[[Mapping[str, Any]], Share],
    ) -> None:
        self._buckets = buckets
        self._layout = layout
        self._share = share
        self._channels = [
            channel for channel in request.get("InputDataConfig", ())
            if input_mode(request, channel) == "Pipe"
        ]
        self._fifos: Fifos | None = None
        self._feeds: list[PipeFeed] = []

    def prepare(self) -> None:
        """Look up every channel's data, and make the first epochs' FIFOs. Raises DownloadError."""
        for feed, channel in self._make():
            try:
                epochs = feed.prepare()
            except ByoaError as error:
                raise DownloadError(f"{error} (channel {feed.name!r})") from None
            except OSError as error:
                raise DownloadError(f"{error.strerror} (channel {feed.name!r})") from None
            write_manifest(self._layout, channel, epochs.paths)

    def start(self) -> None:
        """Feed whoever reads, from now on."""
        if not self._feeds:  # an adopted container's
            for feed, _ in self._make():
                feed.resume()
        for feed in self._feeds:
            feed.start()

    @property
    def failure(self) -> DownloadError | Interrupted | None:
        """What the readers must not take for the end of their data."""
        return next((each.failure for each in self._feeds if each.failure is not None), None)

    def end(self) -> None:
        """Write nothing more, and return at once."""
        for feed in self._feeds:
            feed.end()

    def close(self) -> None:
        """End the threads."""
        self.end()
        for feed in self._feeds:
            feed.close()
        if self._fifos is not None:
            self._fifos.close()

    def _make(self) -> list[tuple[PipeFeed, Mapping[str, Any]]]:
        if not self._channels:
            return []
        self._fifos = Fifos(self._layout)
        records = pipe_records(self._layout)
        self._feeds = [
            PipeFeed(
                self._buckets, channel,
                partial(ChannelEpochs, self._buckets, channel, self._share(channel)),
                self._fifos, records / f"{channel['ChannelName']}.json",
            )
            for channel in self._channels
        ]
        return list(zip(self._feeds, self._channels, strict=True))
