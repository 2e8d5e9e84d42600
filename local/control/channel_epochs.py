"""What each epoch of a Pipe channel delivers to one host, and in what order (TRAIN-94, TRAIN-99).

The order is the same in each epoch, unless the channel has a ShuffleConfig: then it is another one
in each, and the same for the same seed. Shards are taken after shuffling, so that with both what a
host gets differs from epoch to epoch.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator, Mapping
from typing import Any

from byoa.local.control.augmented_manifest import AugmentedManifest
from byoa.local.control.channel_sources import Share, Source, is_sharded, sources_of
from byoa.local.storage.buckets import Buckets


class ChannelEpochs:
    """The epochs of a channel as they are when the job begins; `close` it.

    Raises DownloadError, or ByoaError where there is no such bucket or object.
    """

    def __init__(self, buckets: Buckets, channel: Mapping[str, Any], share: Share) -> None:
        source = channel["DataSource"]["S3DataSource"]
        self._share = share if is_sharded(source) else Share()
        self._seed: int | None = (channel.get("ShuffleConfig") or {}).get("Seed")
        self._manifest: AugmentedManifest | None = None
        self._objects: list[Source] = []
        if source["S3DataType"] == "AugmentedManifestFile":
            self._manifest = AugmentedManifest(buckets, source["S3Uri"], source["AttributeNames"])
        else:
            self._objects = sources_of(buckets, source)

    def parts(self, epoch: int) -> Iterator[Source | bytes]:
        """Objects whose bytes are delivered, and bytes that are delivered themselves: each is one
        record."""
        if self._manifest is None:
            for index in self._order(len(self._objects), epoch):
                yield self._objects[index]
        else:
            for index in self._order(len(self._manifest), epoch):
                yield from self._manifest.parts(index)

    @property
    def paths(self) -> list[str]:
        """Of the objects that this host gets in the first epoch; an augmented manifest's are not
        known before its lines are read."""
        return [self._objects[index].path for index in self._order(len(self._objects), 0)]

    def close(self) -> None:
        if self._manifest is not None:
            self._manifest.close()

    def _order(self, count: int, epoch: int) -> array[int]:
        order = array("Q", range(count))
        if self._seed is not None:
            random.Random(f"{self._seed}/{epoch}").shuffle(order)  # noqa: S311 - no secret
        return order[self._share.turns]
