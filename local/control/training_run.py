"""One training job from Starting to its end, in a thread of its own (ALG-01, ALG-02).

Every step is written down before it is taken, so that another server can go on from there: a job
whose containers were started is adopted, one that was not starts again.
"""

from __future__ import annotations

import logging
import math
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from byoa.container.contract import FAILURE_LIMIT_CHARACTERS, failure_reason, read_failure
from byoa.container.errors import ByoaError
from byoa.local.control import training_record as record
from byoa.local.control.channel_sources import DownloadError
from byoa.local.control.channels_download import remove_input
from byoa.local.control.log_follower import Event
from byoa.local.control.metric_scraper import MetricScraper
from byoa.local.control.metric_series import (
    METRIC,
    PRINTED,
    Point,
    SeriesWriter,
    publish,
    series_path,
)
from byoa.local.control.pipe_feed import Interrupted
from byoa.local.control.training_cluster import TrainingCluster
from byoa.local.control.training_output import UploadError, check_bucket, upload
from byoa.local.control.training_request import metric_definitions
from byoa.local.control.training_services import TrainingServices
from byoa.local.control.utilisation import Utilisation
from byoa.local.settings import Caller
from byoa.local.storage.state import Missing, Row

LOOK_SECONDS = 0.2  # between two looks at stop and runtime; a host's end is seen within them
PEERS_SECONDS = 10.0  # for the others to end when a host has failed: their results are in vain
FAULT = "InternalServerError: We encountered an internal error. Please try again."

UPLOAD_FAILED = "ClientError: Artifact upload failed:"
NOTE_PREFIX = "byoa: "  # of what this service adds to a job's log

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
    """The job was stopped before its containers were started."""


class _Left(Exception):
    """The server goes and leaves the job as it is, for the next one to adopt."""


class TrainingRun:
    """Runs the job of a row; `start` for a new one, `resume` for one of an earlier server."""

    def __init__(self, services: TrainingServices, row: Row) -> None:
        self._services = services
        self._caller, self._name = row.caller, row.name
        self._request = row.document["request"]
        self.directory = job_directory(services.settings.home, row.caller, row.name)
        self._stop = threading.Event()
        # A stop that an earlier server began goes on for its reason.
        self._cause = Cause(**row.document["cause"]) if "cause" in row.document else BY_USER
        self._grace = services.settings.stop_grace
        self._leave = False
        self._ended = threading.Event()
        self._scraper = MetricScraper(metric_definitions(self._request))
        self._scraping = threading.Lock()
        self._series = SeriesWriter(series_path(services.settings.home, row.caller, row.name))
        # Lines of byoa's own in the job's log, of which none is searched.
        self._told = {f"{NOTE_PREFIX}{note}" for note in row.document.get("notes", ())}
        self._cluster = TrainingCluster(services, row, self.directory, self._scrape)
        self._utilisation = Utilisation(self._cluster.hosts, self._measured)
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
        """Let go of the job; its containers run on."""
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
            self._fail(_data_reason(error))
        except UploadError as error:
            self._fail(f"{UPLOAD_FAILED}{error}")
        except ByoaError as error:
            self._fail(f"ClientError: {error}")
        except Exception as error:
            log.exception("training job %s", self._name)
            self._fail(f"{FAULT} ({type(error).__name__}: {error})")
        finally:
            self._tidy()
            self._ended.set()

    def _run(self) -> None:
        cluster, row = self._cluster, self._row()
        adopted = cluster.adopt(row)
        if adopted < len(cluster.hosts):
            if "started_container" in row.document:
                self._fail(f"{FAULT} The process of the container is gone.")
                return
            if not adopted:
                self._prepare()
            self._launch()
        cluster.follow(self._row())
        self._utilisation.start()
        self._supervise()
        self._utilisation.end()
        self._finish()

    def _prepare(self) -> None:
        """Starting and Downloading: everything that the containers find when they start."""
        services = self._services
        self._enter("Starting", "Preparing the instances for training")
        shutil.rmtree(self.directory, ignore_errors=True)  # of an attempt that did not get far
        if "started" not in self._row().document:  # MaxRuntime counts from here (TRAIN-153)
            self._note(started=time.time())
        self._enter("Downloading", "Downloading input data")
        check_bucket(services.buckets, self._request)
        self._cluster.prepare(self._row(), self._check_stop)
        self._enter("Downloading", "Downloading the training image")

    def _launch(self) -> None:
        """Start the containers; those that an earlier server came to start run already."""
        if not record.host_entries(self._row()):
            self._mutate(self._cluster.name_hosts)
        self._enter("Training", "Training image download completed. Training in progress.")
        self._cluster.start(self._row())
        self._note(started_container=True)

    def _supervise(self) -> None:
        """Wait for the end: by itself, by a stop, by the runtime's limit (TRAIN-150), or by a host
        that fails, which ends the others too (TRAIN-140), or whose data does."""
        row = self._row()
        if row.status == "Stopping":  # since an earlier server
            self.stop()
        limit = self._request["StoppingCondition"]["MaxRuntimeInSeconds"]
        spent = time.time() - row.document["started"]
        deadline = time.monotonic() + limit - spent
        while not self._cluster.wait(LOOK_SECONDS):
            if self._leave:
                raise _Left
            if time.monotonic() >= deadline:
                self.stop(BY_RUNTIME)
            if self._stop.is_set():
                self._stopping()
                self._end_hosts()
            elif (failed := self._cluster.failure) is not None:
                log.info("training job %s: %s has failed: the other hosts are stopped",
                         self._name, failed.name)
                self._end_hosts(PEERS_SECONDS)
            elif (broken := self._cluster.data_failure) is not None:
                log.info("training job %s: %s: its hosts are stopped", self._name, broken)
                self._end_hosts(PEERS_SECONDS)

    def _end_hosts(self, grace: float = math.inf) -> None:
        """SIGTERM to every host, and SIGKILL to those that run after the grace (TRAIN-150)."""
        self._cluster.terminate()
        since = time.monotonic()
        while time.monotonic() - since < min(grace, self._grace):  # a shutdown shortens it
            if self._cluster.wait(LOOK_SECONDS):
                return
            if self._leave:
                raise _Left
        log.info("training job %s: killed after %.0f s of grace", self._name,
                 min(grace, self._grace))
        self._cluster.kill()

    def _finish(self) -> None:
        """Uploading, and the terminal status; only now is the last line in the log service."""
        self._cluster.finish_logs()
        self._tell(self._scraper.notes())
        reason = self._failure_reason() if self._row().status != "Stopping" else None
        self._enter("Uploading", "Uploading generated training model", last=True)
        if reason is None:
            self._upload(failed=False)
            self._end("Completed", "Completed", "Training job completed")
            return
        try:
            self._upload(failed=True)
        except UploadError as error:  # the reason is the algorithm's failure, not this
            self._tell([f"artifacts are not uploaded: {error}"])
        self._fail(reason)

    def _failure_reason(self) -> str | None:
        """Of the ended containers: a host that failed for want of data has not failed itself."""
        broken, failed = self._cluster.data_failure, self._cluster.failure
        if broken is not None:
            return _data_reason(broken)
        if failed is None or failed.exit is None:
            return None
        failure, ended = read_failure(failed.layout), failed.exit
        return failure_reason(ended.code, failure, out_of_memory=ended.out_of_memory)

    def _upload(self, *, failed: bool) -> None:
        try:
            left_out = self._cluster.finish_syncs()
            left_out += upload(
                self._services.buckets, self._request, self._name, self._cluster.layouts,
                self.directory, failed=failed,
            )
        except (UploadError, ByoaError, OSError) as error:
            kept = f"; what the job wrote is kept in {self.directory} until `byoa prune`"
            room = FAILURE_LIMIT_CHARACTERS - len(UPLOAD_FAILED) - len(kept)
            raise UploadError(f"{str(error)[:room]}{kept}") from None
        self._tell(left_out)

    def _tell(self, notes: Sequence[str]) -> None:
        """Put what the author should know into the job's log, and its record; once, however many
        servers come to it."""
        known = self._row().document.get("notes", [])
        new = [note for note in dict.fromkeys(notes) if note not in known]
        if new:
            self._note(notes=[*known, *new])
            self._cluster.tell(self._row(), [f"{NOTE_PREFIX}{note}" for note in new])

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
        peaks = self._utilisation.peaks

        def change(row: Row) -> None:
            final = (status, secondary, message)
            if row.status == "Stopping" and status == "Completed":
                final = ("Stopped", self._cause.secondary, self._cause.message)
            row.document["metrics"] = self._scraper.final
            row.document["peak_memory"] = {
                host.name: max(peaks.get(host.name, 0), host.exit.peak_rss_bytes)
                for host in self._cluster.hosts if host.exit is not None
            }
            record.end(row, *final, reason)

        row = self._mutate(change)
        log.info("training job %s: %s %s", self._name, row.status, reason or "")

    # --- helpers ---

    def _scrape(self, host: str, events: Sequence[Event]) -> None:
        with self._scraping:  # every host's lines come in a thread of its own
            found = [
                Point(each.name, each.value, each.moment, host, each.step,
                      METRIC if each.defined else PRINTED)
                for moment, line in events
                if line not in self._told
                for each in self._scraper.scrape(moment, line)
            ]
            kept = self._series.keep(found) if found else []
        publish(self._services.metrics, self._caller, self._name, kept)

    def _measured(self, points: Sequence[Point]) -> None:
        publish(self._services.metrics, self._caller, self._name, self._series.keep(points))

    def _tidy(self) -> None:
        """Remove what the job no longer needs; a failed one keeps all but its input data."""
        self._utilisation.stop()
        self._cluster.let_go()
        if self._leave:
            return
        self._cluster.remove()
        row = self._services.state.get(record.KIND, self._caller, self._name)
        if row is not None and row.status == "Failed":
            for layout in self._cluster.layouts.values():
                remove_input(layout)
        else:
            shutil.rmtree(self.directory, ignore_errors=True)


def _data_reason(error: DownloadError | Interrupted) -> str:
    if isinstance(error, Interrupted):
        return f"{FAULT} {error}"
    return f"ClientError: Data download failed:{error}"


def job_directory(home: Path, caller: Caller, name: str) -> Path:
    """Names are unique within an account and region alone (TRAIN-20)."""
    return home / "jobs" / f"training-{caller.account}-{caller.region}" / name
