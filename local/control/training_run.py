"""One training job from Starting to its end, in a thread of its own (ALG-01, ALG-02).

Every step is written down before it is taken, so that another server can go on from there: a job
whose container was started is adopted, one that was not starts again.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from byoa.container.contract import Layout, failure_reason, read_failure
from byoa.container.errors import ByoaError
from byoa.container.supervisor import Exit
from byoa.local.control import training_record as record
from byoa.local.control.channels_download import DownloadError, download
from byoa.local.control.directory_sync import DirectorySync
from byoa.local.control.log_follower import Event, LogFollower, cloudwatch, mirror_path
from byoa.local.control.metric_scraper import MetricScraper
from byoa.local.control.training_container import HOST, container_spec, write_config
from byoa.local.control.training_output import UploadError, check_bucket, upload
from byoa.local.control.training_request import metric_definitions
from byoa.local.control.training_services import TrainingServices
from byoa.local.runners.base import Container
from byoa.local.settings import Caller
from byoa.local.storage.state import Missing, Row

GROUP = "/aws/sagemaker/TrainingJobs"
LOOK_SECONDS = 0.2  # between two looks at stop and runtime; the container's end is seen at once
KILL_SECONDS = 10.0  # from SIGKILL to the end
FAULT = "InternalServerError: We encountered an internal error. Please try again."

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cause:
    """Why a job is stopped, as its final status and message."""

    secondary: str
    message: str
    stopping: str = "Stopping the training job"


BY_USER = Cause("Stopped", "Training job stopped")
BY_RUNTIME = Cause(
    "MaxRuntimeExceeded", "Training job runtime exceeded MaxRuntimeInSeconds provided"
)
BY_SHUTDOWN = Cause(
    "Stopped", "Training job stopped: the local service was shut down",
    "Stopping the training job: the local service is shut down",
)


class _Stopped(Exception):
    """The job was stopped before its container was started."""


class _Left(Exception):
    """The server goes and leaves the job as it is, for the next one to adopt."""


class TrainingRun:
    """Runs the job of a row; `start` for a new one, `resume` for one of an earlier server."""

    def __init__(self, services: TrainingServices, row: Row) -> None:
        self._services = services
        self._caller, self._name = row.caller, row.name
        self._request = row.document["request"]
        self.directory = job_directory(services.settings.home, row.caller, row.name)
        self._layout = Layout(self.directory / "ml")
        self._stop = threading.Event()
        # A stop that an earlier server began goes on for its reason.
        self._cause = Cause(**row.document["cause"]) if "cause" in row.document else BY_USER
        self._grace = services.settings.stop_grace
        self._leave = False
        self._ended = threading.Event()
        self._container: Container | None = None
        self._follower: LogFollower | None = None
        self._scraper = MetricScraper(metric_definitions(self._request))
        self._syncs: list[DirectorySync] = []
        self._thread = threading.Thread(
            target=self._main, name=f"training-{self._name}", daemon=True
        )

    # --- from other threads ---

    def start(self) -> None:
        self._thread.start()

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    def join(self, timeout: float) -> bool:
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def stop(self, cause: Cause = BY_USER, grace: float | None = None) -> None:
        """Ask the job to stop; the row says Stopping already."""
        if not self._stop.is_set() and cause is not BY_USER:
            self._cause = cause
        if grace is not None:
            self._grace = min(self._grace, grace)
        self._stop.set()

    def leave(self) -> None:
        """Let go of the job; its container runs on."""
        self._leave = True
        self._stop.set()

    # --- the thread ---

    def _main(self) -> None:
        try:
            self._run()
        except (_Left, Missing):
            return
        except _Stopped:
            self._end("Stopped", self._cause.secondary, self._cause.message)
        except DownloadError as error:
            self._fail(f"ClientError: Data download failed:{error}")
        except UploadError as error:
            self._fail(f"ClientError: Artifact upload failed:{error}")
        except ByoaError as error:
            self._fail(f"ClientError: {error}")
        except Exception as error:
            log.exception("training job %s", self._name)
            self._fail(f"{FAULT} ({type(error).__name__}: {error})")
        finally:
            self._tidy()
            self._ended.set()

    def _run(self) -> None:
        document = self._row().document
        container = self._adopt(document)
        if container is None:
            if "started_container" in document:
                self._fail(f"{FAULT} The process of the container is gone.")
                return
            self._prepare()
            container = self._launch()
        self._container = container
        self._watch_output(container)
        ended = self._supervise(container)
        self._finish(ended)

    def _adopt(self, document: Mapping[str, str]) -> Container | None:
        """The container that an earlier server started, if it got that far."""
        name = document.get("container")
        return None if name is None else self._services.runner.adopt({"name": name})

    def _prepare(self) -> None:
        """Starting and Downloading: everything that the container finds when it starts."""
        services = self._services
        self._enter("Starting", "Preparing the instances for training")
        shutil.rmtree(self.directory, ignore_errors=True)  # of an attempt that did not get far
        self._layout.create()
        if "started" not in self._row().document:  # MaxRuntime counts from here (TRAIN-153)
            self._note(started=time.time())
        self._enter("Downloading", "Downloading input data")
        check_bucket(services.buckets, self._request)
        row = self._row()
        write_config(self._layout, row)
        download(services.buckets, self._request, self._layout, self._check_stop)
        self._syncs = self._make_syncs(restore=True)
        self._enter("Downloading", "Downloading the training image")

    def _launch(self) -> Container:
        services = self._services
        row = self._row()
        stream = f"{self._name}/{HOST}-{int(time.time())}"
        path = mirror_path(services.settings.home, self._caller, GROUP, stream)
        image = self._request["AlgorithmSpecification"]["TrainingImage"]
        access = services.environment(self._caller, image)
        spec = container_spec(row, self._layout, path, access)
        self._note(stream=stream, container=spec.name)
        self._enter("Training", "Training image download completed. Training in progress.")
        container = services.runner.start(spec)
        self._note(started_container=True)
        return container

    def _watch_output(self, container: Container) -> None:
        services, stream = self._services, self._row().document["stream"]
        path = mirror_path(services.settings.home, self._caller, GROUP, stream)
        self._follower = LogFollower(
            path, cloudwatch(services.logs, self._caller, GROUP, stream), self._scrape
        )
        self._follower.start()
        if not self._syncs:
            self._syncs = self._make_syncs(restore=False)
        for sync in self._syncs:
            sync.start()

    def _supervise(self, container: Container) -> Exit:
        """Wait for the end, by itself, by a stop or by the runtime's limit (TRAIN-150)."""
        row = self._row()
        if row.status == "Stopping":  # since an earlier server
            self.stop()
        limit = self._request["StoppingCondition"]["MaxRuntimeInSeconds"]
        spent = time.time() - row.document["started"]
        deadline = time.monotonic() + limit - spent
        while True:
            ended = container.wait(LOOK_SECONDS)
            if ended is not None:
                return ended
            if self._leave:
                raise _Left
            if self._stop.is_set():
                break
            if time.monotonic() >= deadline:
                self.stop(BY_RUNTIME)
                break
        self._stopping()
        container.terminate()
        since = time.monotonic()
        while time.monotonic() - since < self._grace:  # a shutdown shortens the grace
            ended = container.wait(LOOK_SECONDS)
            if ended is not None:
                return ended
            if self._leave:
                raise _Left
        log.info("training job %s: killed after %.0f s of grace", self._name, self._grace)
        container.kill()
        ended = container.wait(KILL_SECONDS)
        if ended is None:
            raise RuntimeError(f"the container does not end {KILL_SECONDS} s after SIGKILL")
        return ended

    def _finish(self, ended: Exit) -> None:
        """Uploading, and the terminal status; only now is the last line in the log service."""
        if self._follower is not None:
            self._follower.finish()
        for note in self._scraper.notes():
            log.warning("training job %s: %s", self._name, note)
        failed = ended.code != 0 and self._row().status != "Stopping"
        self._enter("Uploading", "Uploading generated training model", last=True)
        if not failed:
            self._upload(failed=False)
            self._end("Completed", "Completed", "Training job completed")
            return
        try:
            self._upload(failed=True)
        except UploadError as error:  # the reason is the algorithm's failure, not this
            log.warning("training job %s: artifacts are not uploaded: %s", self._name, error)
        failure = read_failure(self._layout)
        self._fail(failure_reason(ended.code, failure, out_of_memory=ended.out_of_memory))

    def _upload(self, *, failed: bool) -> None:
        for sync in self._syncs:
            try:
                sync.finish()
            except (ByoaError, OSError) as error:
                raise UploadError(str(error)) from None
        left_out = upload(
            self._services.buckets, self._request, self._name, self._layout, self.directory,
            failed=failed,
        )
        for note in left_out:
            log.warning("training job %s: not uploaded: %s", self._name, note)

    # --- the record ---

    def _row(self) -> Row:
        row = self._services.state.get(record.KIND, self._caller, self._name)
        if row is None:
            raise Missing(self._name)
        return row

    def _mutate(self, change: Callable[[Row], None]) -> Row:
        return self._services.state.mutate(record.KIND, self._caller, self._name, change)

    def _note(self, **entries: object) -> None:
        self._mutate(lambda row: row.document.update(entries))

    def _check_stop(self) -> None:
        if self._leave:
            raise _Left
        if self._stop.is_set():
            raise _Stopped

    def _enter(self, secondary: str, message: str, *, last: bool = False) -> None:
        """Write down the next step, unless the job was stopped before it (`last` is after it)."""

        def change(row: Row) -> None:
            if row.status == "Stopping" and not last:
                raise _Stopped
            record.transition(row, secondary, message)

        if not last:
            self._check_stop()
        self._mutate(change)

    def _stopping(self) -> None:
        def change(row: Row) -> None:
            row.status = "Stopping"
            row.document["cause"] = asdict(self._cause)
            record.transition(row, "Stopping", self._cause.stopping)

        self._mutate(change)

    def _fail(self, reason: str) -> None:
        self._end("Failed", "Failed", "Training job failed", reason)

    def _end(self, status: str, secondary: str, message: str, reason: str | None = None) -> None:
        """The terminal status; a job that is Stopping ends Stopped, however it exits (TRAIN-151).

        A platform's or upload's failure stays one.
        """
        def change(row: Row) -> None:
            final = (status, secondary, message)
            if row.status == "Stopping" and status == "Completed":
                final = ("Stopped", self._cause.secondary, self._cause.message)
            row.document["metrics"] = self._scraper.final
            record.end(row, *final, reason)

        row = self._mutate(change)
        log.info("training job %s: %s %s", self._name, row.status, reason or "")

    # --- helpers ---

    def _scrape(self, events: Sequence[Event]) -> None:
        for moment, line in events:
            for found in self._scraper.scrape(moment, line):
                for dimensions in ({"TrainingJobName": self._name},
                                   {"Host": f"{self._name}/{HOST}"}):
                    self._services.metrics.put(
                        self._caller, GROUP, found.name, found.value,
                        dimensions=dimensions, timestamp=found.moment,
                    )

    def _make_syncs(self, *, restore: bool) -> list[DirectorySync]:
        buckets, made = self._services.buckets, []
        checkpoints = self._request.get("CheckpointConfig")
        if checkpoints:
            sync = DirectorySync(
                buckets, checkpoints["S3Uri"], self._layout.inside(checkpoints["LocalPath"])
            )
            if restore:
                sync.restore(self._check_stop)
            made.append(sync)
        board = self._request.get("TensorBoardOutputConfig")
        if board:
            uri = f"{board['S3OutputPath'].rstrip('/')}/{self._name}/tensorboard-output"
            path = self._layout.inside(board["LocalPath"])
            path.mkdir(parents=True, exist_ok=True)
            made.append(DirectorySync(buckets, uri, path))
        return made

    def _tidy(self) -> None:
        """Remove what the job no longer needs; a failed one keeps all but its input data."""
        for sync in self._syncs:
            sync.abandon()
        if self._follower is not None:
            self._follower.finish()
        if self._leave:
            return
        container = self._container
        if container is not None:
            if container.wait(0) is None:
                container.kill()
                container.wait(KILL_SECONDS)
            container.remove()
        row = self._services.state.get(record.KIND, self._caller, self._name)
        if row is not None and row.status == "Failed":
            shutil.rmtree(self._layout.data, ignore_errors=True)
        else:
            shutil.rmtree(self.directory, ignore_errors=True)


def job_directory(home: Path, caller: Caller, name: str) -> Path:
    """Names are unique within an account and region alone (TRAIN-20)."""
    return home / "jobs" / f"training-{caller.account}-{caller.region}" / name
