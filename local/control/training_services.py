"""What a training job needs of the rest of the local SageMaker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from byoa.local.control.log_follower import LogService
from byoa.local.control.metric_series import MetricService
from byoa.local.runners.base import Runner
from byoa.local.settings import Caller, Settings
from byoa.local.storage.buckets import Buckets
from byoa.local.storage.state import State


@dataclass(frozen=True)
class TrainingServices:
    """`environment` tells a container how it reaches this service; it is asked when one starts,
    for only then the port is known."""

    settings: Settings
    state: State
    buckets: Buckets
    runner: Runner
    logs: LogService
    metrics: MetricService
    environment: Callable[[Caller, str], dict[str, str]]  # of an image
