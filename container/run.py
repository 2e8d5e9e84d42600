"""What an algorithm is given to train: its data, directories, device, metrics and checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from byoa.container.channels import Channel, open_channels
from byoa.container.checkpoints import Checkpoints
from byoa.container.contract import CheckpointConfig, InputDataConfig, Layout, ResourceConfig
from byoa.container.errors import DataError
from byoa.container.hardware import Hardware, measure
from byoa.container.metrics import Metrics
from byoa.container.peers import of_job

if TYPE_CHECKING:
    from byoa.container.formats.base import Batch

SAMPLE_RECORDS = 1
SAMPLE_FEATURES_LIMIT = 100_000  # a wider record would make the manifest larger than many models


class Run:
    """One training. `channels` are in the request's order; `device` is "cpu" or "cuda".

    `signature` is what the model reads: "features", the columns of a record, and "sample", one
    record, taken from the first channel that is read. An algorithm that reads its files itself
    may set them; they go into the model's manifest, so that serving can check a request's width
    and try the model before it takes traffic.
    """

    def __init__(
        self,
        layout: Layout,
        hyperparameters: Any,
        *,
        hardware: Hardware | None = None,
        stopping: Callable[[], bool] = lambda: False,
        end_line: Callable[[], None] = lambda: None,
    ) -> None:
        self.layout = layout
        self.hyperparameters = hyperparameters
        self.hardware = hardware or measure()
        self.device = self.hardware.device
        self.hosts = ResourceConfig.read(layout)
        self.peers = of_job(self.hosts, stopping=stopping)
        self.model_dir = layout.model
        self.output_dir = layout.output_data
        self.signature: dict[str, Any] = {}
        self.channels = open_channels(
            layout, InputDataConfig.read(layout), hosts=len(self.hosts.hosts), stopping=stopping,
            observe=self._remember,
        )
        host = self.hosts.current_host
        self.metrics = Metrics(
            layout.metrics, host=host, leader=self.hosts.rank == 0, end_line=end_line
        )
        checkpoints = CheckpointConfig.read(layout)
        directory = layout.inside(checkpoints.local_path) if checkpoints else None
        self.checkpoints = Checkpoints(directory, host=host)
        self._stopping = stopping

    @property
    def stopping(self) -> bool:
        """True once SageMaker has asked for the end: save and return within 120 s (TRAIN-150)."""
        return self._stopping()

    def channel(self, name: str) -> Channel:
        """The channel of that name; raises DataError naming those that exist."""
        try:
            return self.channels[name]
        except KeyError:
            have = ", ".join(self.channels) or "none"
            raise DataError(
                "CHANNEL_MISSING", f"the job has no channel {name!r}; it has {have}",
                expected=f"a channel named {name}",
                remedy=f"add channel {name!r} to the job's InputDataConfig; with `byoa train`:"
                f" --channel {name}=FILE",
            ) from None

    def _remember(self, batch: Batch) -> None:
        if self.signature or not len(batch.features):
            return
        width = int(batch.features.shape[1])
        self.signature["features"] = width
        if width <= SAMPLE_FEATURES_LIMIT:
            self.signature["sample"] = batch.features[:SAMPLE_RECORDS].tolist()
