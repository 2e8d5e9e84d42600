"""One image, or one algorithm, under test: its boxes, its /opt/ml trees, what was learnt once.

    with Trial.of_image("mine:latest", samples) as trial:
        box = trial.train(trial.new_ml())
        ended = box.wait(trial.limits.training_seconds)

Everything that a trial starts or writes is gone when it closes, also after Ctrl-C.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, cast

from byoa.container.contract import (
    DEFAULT_PORT,
    HOSTING_STOP_GRACE_SECONDS,
    INVOCATION_TIMEOUT_SECONDS,
    PING_TIMEOUT_SECONDS,
    STARTUP_WINDOW_SECONDS,
    TRAINING_STOP_GRACE_SECONDS,
    ChannelConfig,
    hosting_environment,
    training_environment,
)
from byoa.local.check import killed, tree
from byoa.local.check.box import Box, BoxSpec
from byoa.local.check.checks import NotApplicable
from byoa.local.check.image_facts import ImageFacts, labels
from byoa.local.check.reclaim import owner_for

REGION = "us-east-1"
JOB = "byoa-check"
JOB_ARN = f"arn:aws:sagemaker:{REGION}:123456789012:training-job/{JOB}"

T = TypeVar("T")


@dataclass(frozen=True)
class Samples:
    """What the user gives: nothing of it is ever written to."""

    channels: Mapping[str, Path] = field(default_factory=dict)  # a folder or a file each
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    channel_types: Mapping[str, str] = field(default_factory=dict)  # ContentType, by channel
    request: bytes | None = None
    content_type: str | None = None
    accept: str | None = None
    model: Path | None = None  # model folder or model.tar.gz; None is what the training run left
    environment: Mapping[str, str] = field(default_factory=dict)
    hosts: int = 1  # 2: the image trains on several hosts
    pipe: tuple[str, ...] = ()  # channels that it reads in Pipe mode
    process_command: tuple[str, ...] = ()  # ContainerEntrypoint of a processing job
    metrics: Mapping[str, str] = field(default_factory=dict)  # the job's expressions, by name


@dataclass(frozen=True)
class Waits:
    """How long each wait may take, in seconds."""

    training_seconds: float = 600.0  # a training run on the samples, start to end
    training_stop_seconds: float = TRAINING_STOP_GRACE_SECONDS
    peer_seconds: float = 30.0  # that a host's name takes to resolve (TRAIN-65)
    hosting_stop_seconds: float = HOSTING_STOP_GRACE_SECONDS
    startup_seconds: float = STARTUP_WINDOW_SECONDS
    ping_seconds: float = PING_TIMEOUT_SECONDS
    invocation_seconds: float = INVOCATION_TIMEOUT_SECONDS


class Trial:
    """What checks share. Costly things are made once, through `memo`."""

    def __init__(
        self,
        image: str,
        samples: Samples,
        limits: Waits,
        *,
        engine: Any = None,
        facts: ImageFacts | None = None,
        boxes: Any = None,
    ) -> None:
        self.image = image  # reference of the image; in process mode the algorithm
        self.samples = samples
        self.limits = limits
        self.engine = engine  # docker.DockerClient; None in process mode
        self.facts = facts  # None in process mode
        self.owner = uuid.uuid4().hex[:12]  # value of the label on everything in the engine
        self._processes = boxes  # ProcessBoxes; None where there is an engine
        self._folder = Path(tempfile.mkdtemp(prefix=killed.PREFIX))
        (self._folder / killed.FILE).write_text(killed.mark(), encoding="utf-8")
        self._folder.chmod(0o755)  # a box's user must be able to come to its /opt/ml
        self._boxes: list[Box] = []
        self._networks = 0
        self._keep = contextlib.ExitStack()
        self._files_to = None if engine is None else owner_for(engine)
        self._memory: dict[str, tuple[bool, Any]] = {}
        # Two locks: what `memo` makes may start boxes from threads of its own.
        self._lock = threading.Lock()
        self._memory_lock = threading.RLock()
        self._trees = 0

    @classmethod
    def of_image(cls, image: str, samples: Samples, limits: Waits | None = None) -> Trial:
        """A trial of an image that the engine has; raises ByoaError where it has none of it."""
        from byoa.local.check.image_facts import read_facts
        from byoa.local.runners.engine import connect

        trial = cls(image, samples, limits or Waits(), engine=connect())
        try:
            trial.facts = read_facts(trial.engine, image, trial._keep, trial.owner)
        except BaseException:
            trial.close()
            raise
        return trial

    @classmethod
    def of_algorithm(cls, algorithm: str, samples: Samples, limits: Waits | None = None) -> Trial:
        """A trial in process mode: a built-in's name, module:Class, a file or a folder."""
        from byoa.local.check.process_box import ProcessBoxes

        trial = cls(algorithm, samples, limits or Waits())
        try:
            trial._processes = ProcessBoxes(algorithm, trial._folder / "home")
        except BaseException:
            trial.close()
            raise
        return trial

    # --- boxes ------------------------------------------------------------------------------------

    def box(
        self,
        command: Sequence[str],
        *,
        ml: Path,
        environment: Mapping[str, str] | None = None,
        network: str = "bridge",
        host: str | None = None,
        port: int | None = None,
        user: str | None = None,
        entrypoint: Sequence[str] | None = None,
        read_only_model: bool = False,
        read_only_data: bool = False,
        read_only: bool = False,
        mounts: Mapping[str, Path] | None = None,
        memory_bytes: int | None = None,
        shm_bytes: int | None = None,
    ) -> Box:
        """Start a container: `docker run` with these options, the samples' environment and then
        `environment` in it. Raises NotApplicable for what a process cannot do.

        A first program that cannot be started is a box that has ended, with 126 or 127.
        """
        spec = BoxSpec(
            tuple(command), ml, {**self.samples.environment, **(environment or {})},
            network=network, host=host, port=port, user=user,
            entrypoint=None if entrypoint is None else tuple(entrypoint),
            read_only_model=read_only_model, read_only_data=read_only_data, read_only=read_only,
            mounts=dict(mounts or {}),
            memory_bytes=memory_bytes, shm_bytes=shm_bytes,
        )
        made: Box
        if self._processes is not None:
            made = self._processes.start(spec)
        else:
            from byoa.local.check.docker_box import DockerBox

            made = DockerBox(
                self.engine, self.image, spec, owner=self.owner, files_to=self._files_to
            )
        with self._lock:
            self._boxes.append(made)
        return made

    def train(
        self, ml: Path, *, environment: Mapping[str, str] | None = None, **options: Any
    ) -> Box:
        """`docker run IMAGE train` with a training job's environment (TRAIN-01, TRAIN-80)."""
        values = training_environment(job_name=JOB, job_arn=JOB_ARN, region=REGION)
        return self.box(("train",), ml=ml, environment={**values, **(environment or {})},
                        **{"host": "algo-1", **options})

    def serve(
        self, ml: Path, *, environment: Mapping[str, str] | None = None,
        port: int | None = DEFAULT_PORT, **options: Any,
    ) -> Box:
        """`docker run IMAGE serve` with an endpoint's environment and its port published."""
        values = hosting_environment(region=REGION)
        return self.box(("serve",), ml=ml, environment={**values, **(environment or {})},
                        port=port, **options)

    def network(self, *, isolated: bool = False) -> str:
        """A network of this trial in which boxes reach one another by `host`; not for processes.

        From an isolated one nothing else can be reached; this machine reaches its boxes.
        """
        if self.engine is None:
            raise NotApplicable("processes of this machine share its one network")
        self._networks += 1
        name = f"byoa-check-{self.owner}-{self._networks}"
        self.engine.api.create_network(
            name, driver="bridge", internal=isolated, labels=labels(self.owner)
        )
        return name

    # --- /opt/ml ----------------------------------------------------------------------------------

    def new_ml(
        self,
        *,
        hyperparameters: Mapping[str, str] | None = None,
        channels: Mapping[str, Path] | None = None,
        configs: Mapping[str, ChannelConfig] | None = None,
        host: str = "algo-1",
        hosts: Sequence[str] = ("algo-1",),
        checkpoints: bool = False,
    ) -> Path:
        """A fresh /opt/ml for training with the samples, or with what is given in their place.

        Change what a check is about afterwards: nobody else sees this tree.
        """
        root = self._new_root()
        types = self.samples.channel_types
        known = self.samples.channels if channels is None else channels
        given = {name: ChannelConfig(content_type=types.get(name)) for name in known}
        tree.write_training(
            root,
            hyperparameters=self.samples.hyperparameters
            if hyperparameters is None else hyperparameters,
            channels=known, configs=given | dict(configs or {}), host=host, hosts=hosts,
            checkpoints=checkpoints,
        )
        return root

    def hosting_ml(self, model: Path | None = None) -> Path:
        """A fresh /opt/ml for serving: `model` (folder or archive), else the samples' model, else
        an empty /opt/ml/model."""
        root = self._new_root()
        tree.write_hosting(root, model if model is not None else self.samples.model)
        return root

    def new_folder(self) -> Path:
        """An empty folder that is removed with the trial."""
        root = self._new_root()
        root.mkdir()
        return root

    def _new_root(self) -> Path:
        with self._lock:
            self._trees += 1
            return self._folder / f"{self._trees}"

    # --- what several checks look at --------------------------------------------------------------

    def memo(self, key: str, make: Callable[[], T]) -> T:
        """The value of `make`, called once for `key`; what it raised is raised again."""
        with self._memory_lock:
            if key not in self._memory:
                try:
                    self._memory[key] = (True, make())
                except Exception as error:
                    self._memory[key] = (False, error)
            good, value = self._memory[key]
        if not good:
            raise cast(Exception, value)
        return cast(T, value)

    # --- the end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Remove every box, network and folder of the trial."""
        with self._lock:
            boxes, self._boxes = self._boxes, []
        for each in reversed(boxes):
            each.remove()
        if self._processes is not None:
            self._processes.close()
        if self.engine is not None:
            from byoa.local.check.docker_box import sweep

            self._keep.close()
            sweep(self.engine, self.owner)  # also what an interrupt left between two steps
            self.engine.close()
        tree.remove(self._folder)

    def __enter__(self) -> Trial:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
