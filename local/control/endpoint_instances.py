"""One instance of a variant: its model, its container, its health, from first to last.

A thread of its own fetches the model, starts the container, pings it, restarts it when it ends or
falls ill, and stops it. What it saw goes into the endpoint's FailureReason in its words.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from byoa.container.contract import (
    DEFAULT_PORT,
    FAILURE_LIMIT_CHARACTERS,
    HOSTING_STOP_GRACE_SECONDS,
    PING_INTERVAL_SECONDS,
    Layout,
    hosting_environment,
)
from byoa.container.errors import ByoaError
from byoa.container.supervisor import Exit
from byoa.local.control.deployments import Variant
from byoa.local.control.health import Ping, ping
from byoa.local.control.instance_files import Place
from byoa.local.control.instance_limits import limits_of
from byoa.local.control.log_follower import LogFollower, LogService, begin, cloudwatch, tail
from byoa.local.control.model_data import MANY, remove_tree
from byoa.local.control.unsupported import effect_note
from byoa.local.runners.base import Container, ContainerSpec, Runner
from byoa.local.runners.listeners import described, is_loopback
from byoa.local.runtime.routing import Backend
from byoa.local.runtime.target_models import TargetModels
from byoa.local.settings import Caller, Settings
from byoa.local.storage.buckets import Buckets

START_POLL_SECONDS = 0.05  # an endpoint is InService as soon as its container is, not 5 s later
WATCH_POLL_SECONDS = 0.2
UNHEALTHY_PINGS = 3  # in a row, after InService (HOST-24)
EXITS_BEFORE_FAILURE = 2  # in a row, before InService
BACKOFF_SECONDS = (0.2, 30.0)  # first and longest pause before a restart after InService
STEADY_SECONDS = 60.0  # a container healthy for so long starts with a short pause again
_TAIL_LINES = 15
_LOG_SECONDS = 2.0

_log = logging.getLogger("byoa.endpoints")


@dataclass(frozen=True)
class Platform:
    """What every instance needs of the service around it."""

    runner: Runner
    buckets: Buckets
    settings: Settings
    # Variables by which a container reaches this service: address and credentials.
    environment: Callable[[Caller, str], Mapping[str, str]]
    logs: LogService


@dataclass(frozen=True)
class _End:
    """Why a container must be replaced."""

    reason: str
    exited: bool = False  # by itself: another one may do better


class Instance:
    """One instance; `start` returns at once, `settled` tells when it is healthy or has failed."""

    def __init__(
        self,
        platform: Platform,
        place: Place,
        variant: Variant,
        changed: threading.Condition,
        container: Container | None = None,
    ) -> None:
        self.place = place
        self.backend = Backend(place.id)
        if variant.data is not None and variant.data.layout == MANY:
            models = Layout(place.directory / "ml").root / "models"
            self.backend.models = TargetModels(
                self._fetch_target, models, keep=variant.data.keep
            )
        self.failure: str | None = None
        self.ended = threading.Event()
        self._platform = platform
        self._variant = variant
        self._changed = changed
        self._container = container
        self._log_path = place.log(platform.settings.home)
        # The file outlives the containers that write to it one after the other, so that one
        # follower carries it all, each line once.
        self._follower = LogFollower(
            self._log_path, cloudwatch(platform.logs, place.caller, place.group, place.stream)
        )
        self._proved = False  # it has been healthy once
        self._told: str | None = None  # by /ping, why it is not healthy
        self._phase_ends: float | None = None  # of the download
        self._stop = threading.Event()
        self._drain_seconds = 0.0
        self._grace = HOSTING_STOP_GRACE_SECONDS
        self._thread = threading.Thread(target=self._run, name=f"instance-{place.id}", daemon=True)

    @property
    def settled(self) -> bool:
        """Healthy once, or failed for good."""
        return self._proved or self.failure is not None

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, drain: float, grace: float) -> None:
        """Begin to stop: no new requests, up to `drain` seconds for those in flight, SIGTERM,
        `grace` seconds, SIGKILL (HOST-03). `ended` is set at the end."""
        self._drain_seconds, self._grace = drain, grace
        self._stop.set()

    def check_download(self) -> None:
        """Fail when the model data takes longer than it may."""
        ends = self._phase_ends
        if ends is not None and monotonic() > ends:
            seconds = self._variant.download_seconds
            self._fail(f"{self._data_sentence()} It took longer than {seconds:g} seconds.")

    # --- the thread ---

    def _run(self) -> None:
        try:
            if self._container is not None or self._fetch():
                self._follower.start()
                self._live()
        except Exception as error:  # a thread's exception has no other reader
            _log.exception("instance %s of endpoint %s", self.place.id, self.place.endpoint)
            self._fail(f"The instance could not be run: {error}")
        finally:
            try:
                self._drain()
                self._end_container(self._grace)
                self._follower.finish()
                self.backend.close()
            finally:
                self.ended.set()
                self._tell()

    def _drain(self) -> None:
        """Wait for the requests in flight; a second `stop`, without a drain, ends the wait."""
        began = monotonic()
        while monotonic() - began < self._drain_seconds:
            if self.backend.drain(WATCH_POLL_SECONDS):
                return

    def _fetch(self) -> bool:
        """Put the model into ml/model; False when it cannot be had."""
        self.place.write()
        begin(self._log_path, effect_note(self._variant.without_effect))
        layout = Layout(self.place.directory / "ml")
        fetched = self.place.directory / "fetched"
        if fetched.exists():
            return True
        remove_tree(layout.root)
        layout.model.mkdir(parents=True)
        data = self._variant.data
        if data is not None:
            self._phase_ends = monotonic() + self._variant.download_seconds
            try:
                data.download(self._platform.buckets, layout.model)
            except (ByoaError, OSError) as error:
                self._fail(f"{self._data_sentence()} {error}")
                return False
            finally:
                self._phase_ends = None
        fetched.touch()
        return self.failure is None

    def _fetch_target(self, target: str, directory: Path) -> None:
        """Put one of many models where the container finds it; raises ByoaError."""
        data = self._variant.data
        if data is None:
            raise RuntimeError(f"variant {self._variant.name} has no models")
        try:
            data.one(target).download(self._platform.buckets, directory)
        except OSError as error:
            raise ByoaError("MODEL_DATA_UNREADABLE", f"{error.strerror}: {target}") from error

    def _live(self) -> None:
        """Keep a container running until told to stop; before it has been healthy once, fail
        after two exits in a row, when the window closes, or at once where it is of no use."""
        pause, longest = BACKOFF_SECONDS
        exits = 0
        window = self._variant.startup_seconds or self._platform.settings.startup_window
        deadline = monotonic() + window
        while not self._stop.is_set():
            began = monotonic()
            if self._proved:
                deadline = began + window
            end = self._one_container(deadline)
            if self._stop.is_set() or end is None or self.failure is not None:
                return
            exits += end.exited
            if not self._proved:
                if exits >= EXITS_BEFORE_FAILURE:
                    self._fail(self._ping_sentence(end.reason))
                    return
                pause = BACKOFF_SECONDS[0]
            elif monotonic() - began > STEADY_SECONDS:
                pause = BACKOFF_SECONDS[0]
            _log.warning(
                "endpoint %s, %s: %s; restarting", self.place.endpoint, self.place.id, end.reason
            )
            self._stop.wait(pause)
            pause = min(pause * 2, longest)

    def _one_container(self, deadline: float) -> _End | None:
        """From start to end; None when told to stop."""
        adopted = self._container is not None
        try:
            container = self._container or self._launch()
        except ByoaError as error:
            self.backend.reason = str(error)
            if not self._proved:
                self._fail(f"Production variant {self.place.variant} could not be started: {error}")
            return _End(str(error))
        self._container = container
        end: _End | None = None
        try:
            address = container.address
            if address is None:  # it ended before it had one
                end = self._ended(container, 0.0)
                if end is None:
                    raise ByoaError("CONTAINER_ADDRESS", f"{container!r} publishes no port")
            else:
                self.backend.connect(address)
                end = self._watch(container, address, deadline, adopted)
        finally:
            self.backend.ready = False
            self.backend.reason = (
                "it is stopping" if end is None else f"{end.reason}; it is being restarted"
            )
        if end is not None:
            if not self._proved and not end.exited:
                self._fail(self._ping_sentence(end.reason))  # now: it may take its time to end
            self._end_container(HOSTING_STOP_GRACE_SECONDS)
        return end

    def _watch(
        self, container: Container, address: tuple[str, int], deadline: float, adopted: bool
    ) -> _End | None:
        """Ping until the container ends, falls ill, misses its window, says that it has failed,
        or is told to stop."""
        healthy = False
        failures = 0
        next_ping = 0.0
        while not self._stop.is_set():
            end = self._ended(container, WATCH_POLL_SECONDS if healthy else START_POLL_SECONDS)
            if end is not None:
                return end
            if monotonic() < next_ping:
                continue
            look = ping(address)
            if look.healthy:
                failures = 0
                self._told = None
                if not healthy:
                    healthy = True
                    self._now_healthy()
                self.backend.last_answer = monotonic()
            elif not healthy:
                self._told = look.text if look.told else self._told
                # In one that served before, a worker may have failed that is being replaced.
                if (look.failed and not adopted) or monotonic() > deadline:
                    elsewhere = None if look.answered else _listens_elsewhere(container)
                    return _End(look.text if elsewhere is None else f"{elsewhere}; {look.text}")
            elif not self._is_busy(look):
                failures += 1
                if failures >= UNHEALTHY_PINGS:
                    return _End(f"{failures} pings in a row failed, the last: {look.text}")
            if healthy:
                next_ping = monotonic() + PING_INTERVAL_SECONDS
        return None

    def _ended(self, container: Container, timeout: float) -> _End | None:
        """Why the container has ended, if it has; one that nobody can ask about counts as ended."""
        try:
            ended = container.wait(timeout)
        except ByoaError as error:
            return _End(str(error), exited=True)
        if ended is None:
            return None
        words = _exit_words(ended)
        return _End(f"{self._told}; then {words}" if self._told else words, exited=True)

    def _is_busy(self, look: Ping) -> bool:
        """A server of one worker cannot answer /ping within an invocation; that is no illness
        until the invocation itself is overdue."""
        silent = monotonic() - self.backend.last_answer
        return (
            look.timed_out
            and self.backend.outstanding > 0
            and silent < self._platform.settings.invocation_timeout
        )

    def _now_healthy(self) -> None:
        self.backend.ready = True
        self._proved = True
        self._tell()

    def _launch(self) -> Container:
        place, variant = self.place, self._variant
        # An isolated container reaches nothing, and is not told where it would be (HOST-08).
        access = {} if variant.isolated else self._platform.environment(
            place.caller, variant.image
        )
        spec = ContainerSpec(
            name=f"{place.endpoint}-{place.id}",
            image=variant.image,
            command=("serve",),
            ml=place.directory / "ml",
            log=self._log_path,
            environment=hosting_environment(
                region=place.caller.region, user={**variant.environment, **access},
                multi_model=self.backend.models is not None,
            ),
            port=DEFAULT_PORT,
            isolated=variant.isolated,
            host=variant.hostname,
            limits=limits_of(variant.instance_type),
        )
        container = self._platform.runner.start(spec)
        place.write_handle(container.handle)
        return container

    def _end_container(self, grace: float) -> None:
        container, self._container = self._container, None
        if container is None:
            return
        try:
            container.stop(grace)
        except ByoaError as error:
            _log.warning("endpoint %s, %s: %s", self.place.endpoint, self.place.id, error)
        container.remove()
        self.place.forget_handle()

    # --- words ---

    def _fail(self, reason: str) -> None:
        if self.failure is None:
            self.failure = reason[:FAILURE_LIMIT_CHARACTERS]
            self._tell()

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _data_sentence(self) -> str:
        uri = self._variant.data.uri if self._variant.data else ""
        return (
            f'Failed to download model data for container "primary" from URL: "{uri}". Please'
            " ensure that there is an object located at the URL and that the role passed to"
            " CreateModel has permissions to download the model data."
        )

    def _ping_sentence(self, reason: str) -> str:
        """The service's sentence (HOST-23), then what was seen, then the log's end."""
        head = (
            f"The primary container for production variant {self.place.variant} did not pass the"
            " ping health check. Please check CloudWatch logs for this endpoint."
            f" Seen: {reason}."
        )
        room = FAILURE_LIMIT_CHARACTERS - len(head) - len(" Log: ")
        end = tail(self._log_path, _TAIL_LINES, patience=_LOG_SECONDS)
        if not end or room < 40:
            return head
        if len(end) > room:
            end = "…" + end[-room + 1 :]
        return f"{head} Log: {end}"


def _listens_elsewhere(container: Container) -> str | None:
    """Where its server listens, when that is why nobody reaches it (HOST-10, TRAP-06)."""
    listeners = container.listeners()
    if any(port == DEFAULT_PORT and not is_loopback(host) for host, port in listeners):
        return None
    found = described(listeners)
    return f"the server listens on {found}, must be 0.0.0.0:{DEFAULT_PORT}" if listeners else None


def _exit_words(ended: Exit) -> str:
    if ended.out_of_memory:
        return "the container was killed for lack of memory"
    if ended.signal is not None:
        return f"the container was ended by signal {ended.signal}"
    return f"the container exited with code {ended.code}"
