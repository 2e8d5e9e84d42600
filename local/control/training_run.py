"""One training job from Starting to its end, in a thread of its own (ALG-01, ALG-02).

Every step is written down before it is taken, so that another server can go on from there: a job
whose containers were started is adopted, one that was not starts again. So does one whose instances
were taken away (`spot`), or whose platform failed (`attempts`).
"""

from __future__ import annotations

import logging
import math
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from byoa.container.contract import FAILURE_LIMIT_CHARACTERS, failure_reason, read_failure
from byoa.container.errors import ByoaError
from byoa.local.control import attempts, silent_end, spot, warm_pools
from byoa.local.control import training_record as record
from byoa.local.control.attempts import PlatformFault
from byoa.local.control.channel_sources import DownloadError
from byoa.local.control.channels_download import remove_input
from byoa.local.control.log_follower import NOTE_PREFIX, Event
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
from byoa.local.control.spot import Interruption
from byoa.local.control.stop_causes import BY_USER, Cause
from byoa.local.control.training_clocks import Clocks
from byoa.local.control.training_cluster import TrainingCluster
from byoa.local.control.training_output import UploadError, check_bucket, upload
from byoa.local.control.training_request import WITHOUT_EFFECT, metric_definitions
from byoa.local.control.training_services import TrainingServices
from byoa.local.control.unsupported import effect_note, without_effect
from byoa.local.control.utilisation import Utilisation
from byoa.local.control.warm_pools import WarmPools
from byoa.local.runners.base import Warm
from byoa.local.settings import Caller
from byoa.local.storage.state import Missing, Row

LOOK_SECONDS = 0.2  # between two looks at stop and runtime; a host's end is seen within them
PEERS_SECONDS = 10.0  # for the others to end when a host has failed: their results are in vain
TAKEN_AWAY = "The instance was taken away by `byoa interrupt --fault`."

DOWNLOAD_FAILED = "ClientError: Data download failed:"
UPLOAD_FAILED = "ClientError: Artifact upload failed:"

log = logging.getLogger(__name__)


class _Stopped(Exception):
    """The job was stopped before its containers were started."""


class _Left(Exception):
    """The server goes and leaves the job as it is, for the next one to adopt."""


class _Interrupted(Exception):
    """The instances were taken away."""


class TrainingRun:
    """Runs the job of a row; `start` for a new one, `resume` for one of an earlier server."""

    def __init__(self, services: TrainingServices, row: Row, pools: WarmPools) -> None:
        self._services = services
        self._pools = pools
        self._warm: dict[str, Warm] = {}  # by host
        self._caller, self._name = row.caller, row.name
        self._request = row.document["request"]
        self.directory = job_directory(services.settings.home, row.caller, row.name)
        self._stop = threading.Event()
        # A stop that an earlier server began goes on for its reason.
        self._cause = Cause(**row.document["cause"]) if "cause" in row.document else BY_USER
        self._grace = services.settings.stop_grace
        self._leave = False
        self._interruption = spot.requested(row)
        self._ended = threading.Event()
        self._scraper = MetricScraper(metric_definitions(self._request))
        self._scraping = threading.Lock()
        self._series = SeriesWriter(series_path(services.settings.home, row.caller, row.name))
        # Lines of byoa's own in the job's log, of which none is searched.
        self._effect = effect_note(without_effect(self._request, WITHOUT_EFFECT))
        notes = [*row.document.get("notes", ()), *filter(None, [self._effect])]
        self._told = {f"{NOTE_PREFIX}{note}" for note in notes}
        self._clocks = Clocks(row)
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

    def interrupt(self, interruption: Interruption) -> None:
        """Take the job's instances away; the row says so already."""
        self._interruption = interruption

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
            self._fail(f"{DOWNLOAD_FAILED}{error}")
        except UploadError as error:
            self._fail(f"{UPLOAD_FAILED}{error}")
        except Exception as error:
            if not isinstance(error, ByoaError | PlatformFault):
                log.exception("training job %s", self._name)
            self._fail(attempts.fault_of(error) or f"ClientError: {error}")
        finally:
            self._tidy()
            self._ended.set()

    def _run(self) -> None:
        """Attempts, until one of them comes to its end."""
        while True:
            try:
                return self._attempt()
            except _Interrupted:
                self._again(spot.end)
            except (_Left, _Stopped, Missing, DownloadError, UploadError):
                raise
            except Exception as error:
                fault = attempts.fault_of(error)
                row = self._row()
                if fault is None or row.status == "Stopping" or not attempts.retries_left(row):
                    raise
                known = isinstance(error, ByoaError | PlatformFault)
                log.warning("training job %s is run again: %s", self._name, fault,
                            exc_info=not known)
                self._again(attempts.retry)

    def _attempt(self) -> None:
        cluster, row = self._cluster, self._row()
        adopted = cluster.adopt(row)
        if adopted < len(cluster.hosts):
            if spot.has_begun(row):
                raise _Interrupted
            if "started_container" in row.document:
                raise PlatformFault("The process of the container is gone.")
            if not adopted:
                self._prepare()
            self._launch()
        cluster.follow(self._row())
        self._utilisation.start()
        self._supervise()
        self._utilisation.end()
        self._finish()

    def _again(self, change: Callable[[Row], None]) -> None:
        """Remove what the attempt ran, write down its end, and make the next one's cluster."""
        self._utilisation.stop()
        self._cluster.let_go()
        self._cluster.remove()
        row = self._mutate(change)
        self._interruption = None
        self._clocks = Clocks(row)
        self._cluster = TrainingCluster(self._services, row, self.directory, self._scrape)
        self._utilisation = Utilisation(self._cluster.hosts, self._measured)

    def _prepare(self) -> None:
        """Starting and Downloading: everything that the containers find when they start."""
        services = self._services
        while (left := self._row().document.get("capacity_at", 0.0) - time.time()) > 0:
            self._check_stop()
            self._stop.wait(min(left, LOOK_SECONDS))
        self._enter("Starting", "Preparing the instances for training")
        self._warm = self._pools.claim(self._row())
        shutil.rmtree(self.directory, ignore_errors=True)  # of an attempt that did not get far
        self._clocks = Clocks(self._mutate(attempts.begin))
        self._enter("Downloading", "Downloading input data")
        check_bucket(services.buckets, self._request)
        self._cluster.prepare(self._row(), self._check_stop)
        self._enter("Downloading", "Downloading the training image")

    def _launch(self) -> None:
        """Start the containers; those that an earlier server came to start run already."""
        if not record.host_entries(self._row()):
            self._mutate(self._cluster.name_hosts)
        self._enter("Training", "Training image download completed. Training in progress.")
        self._cluster.begin_log(self._row(), self._effect)
        self._cluster.start(self._row(), self._warm)
        self._note(started_container=True)

    def _supervise(self) -> None:
        """Wait for the end: by itself, by a stop or a limit of time (TRAIN-150), or by a host that
        fails or whose data does, which ends the others too (TRAIN-140); or for an interruption."""
        row = self._row()
        if row.status == "Stopping":  # since an earlier server
            self.stop()
        elif spot.has_begun(row) and self._interruption is not None:  # so was this
            self._take_away(self._interruption)
        since = row.document["transitions"][-1]["StartTime"]
        while not self._cluster.wait(LOOK_SECONDS):
            if self._leave:
                raise _Left
            self._check_clocks()
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
            elif (
                self._interruption is not None and time.time() - since >= self._interruption.after
            ):
                self._take_away(self._interruption)

    def _take_away(self, interruption: Interruption) -> None:
        """The instances go: with a notice, in which checkpoints still go up (TRAIN-163), or by a
        fault."""
        if interruption.fault:
            self._cluster.kill()
            raise PlatformFault(TAKEN_AWAY)

        if not spot.has_begun(self._mutate(spot.begin)):
            return  # somebody has stopped the job meanwhile
        by_itself = self._end_hosts(interruption.notice)
        if self._leave:
            raise _Left
        if self._stop.is_set():  # during the notice: the stop wins
            return self._stopping()
        if by_itself:  # until the notice is over the instances are there, and what is on them
            try:
                self._cluster.finish_syncs()
            except (ByoaError, OSError) as error:
                log.warning("training job %s: not synced: %s", self._name, error)
        raise _Interrupted

    def _end_hosts(self, grace: float = math.inf) -> bool:
        """SIGTERM to every host, and SIGKILL to those that run after the grace (TRAIN-150); whether
        they all ended by themselves."""
        self._cluster.terminate()
        since = time.monotonic()
        while time.monotonic() - since < min(grace, self._grace):  # a shutdown shortens it
            if self._cluster.wait(LOOK_SECONDS):
                return True
            if self._leave:
                raise _Left
        log.info("training job %s: killed after %.0f s of grace", self._name,
                 min(grace, self._grace))
        self._cluster.kill()
        return False

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
        self._tell(self._silence())
        self._fail(reason)

    def _failure_reason(self) -> str | None:
        """Of the ended containers: a host that failed for want of data has not failed itself."""
        broken, failed = self._cluster.data_failure, self._cluster.failure
        if isinstance(broken, Interrupted):
            raise PlatformFault(str(broken))
        if broken is not None:
            return f"{DOWNLOAD_FAILED}{broken}"
        if failed is not None and failed.lost:
            raise PlatformFault(f"What ran the container of {failed.name} was killed.")
        if failed is None or failed.exit is None:
            return None
        failure, ended = read_failure(failed.layout), failed.exit
        return failure_reason(ended.code, failure, out_of_memory=ended.out_of_memory)

    def _silence(self) -> list[str]:
        """The cause of a failure where FailureReason has none to name."""
        failed, broken = self._cluster.failure, self._cluster.data_failure
        if failed is None or failed.exit is None or broken is not None:
            return []
        if not silent_end.is_silent(failed.layout, failed.exit):
            return []
        entry = record.host_entries(self._row())[failed.name]
        return [silent_end.note(failed.name, failed.exit, failed.last_line(entry))]

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

    # --- clocks, stops and interruptions ---

    def _check_clocks(self) -> None:
        if (cause := self._clocks.reached()) is not None:
            self.stop(cause)

    def _check_stop(self) -> None:
        """While there is no container: raises where the attempt is not to go on."""
        if self._leave:
            raise _Left
        self._check_clocks()
        if self._stop.is_set():
            raise _Stopped
        interruption = self._interruption
        if interruption is None or interruption.after > 0:
            return
        if interruption.fault:
            raise PlatformFault(TAKEN_AWAY)
        raise _Interrupted

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
            warm_pools.open_pool(row)

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
        for warm in self._warm.values():
            warm.close()
        if self._leave:
            return
        self._cluster.remove()
        row = self._services.state.get(record.KIND, self._caller, self._name)
        if row is not None and row.status == "Failed":
            for layout in self._cluster.layouts.values():
                remove_input(layout)
        else:
            shutil.rmtree(self.directory, ignore_errors=True)
        if row is not None:
            self._pools.keep(row)


def job_directory(home: Path, caller: Caller, name: str) -> Path:
    """Names are unique within an account and region alone (TRAIN-20)."""
    return home / "jobs" / f"training-{caller.account}-{caller.region}" / name
