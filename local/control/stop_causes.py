"""Why a training job is stopped: the final status and message that each cause gives it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """A cause, as a job's final status and message, and the message while it stops."""

    secondary: str
    message: str
    stopping: str = "Stopping the training job"


BY_USER = Cause("Stopped", "Training job stopped")
BY_RUNTIME = Cause(
    "MaxRuntimeExceeded", "Training job runtime exceeded MaxRuntimeInSeconds provided"
)
BY_WAIT = Cause(
    "MaxWaitTimeExceeded", "Training job wait time exceeded MaxWaitTimeInSeconds provided"
)
BY_SHUTDOWN = Cause(
    "Stopped", "Training job stopped: the local service was shut down",
    "Stopping the training job: the local service is shut down",
)
BY_DOWN = Cause(
    "Stopped",
    "Training job stopped: the local service was killed, and `byoa down` ended what it had left"
    " running",
    "Stopping the training job: `byoa down` ends what a killed local service left running",
)
