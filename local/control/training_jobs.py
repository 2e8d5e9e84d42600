"""Training jobs: create, describe, list, stop, update, delete; their runs across restarts."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from byoa.local.api.listing import page
from byoa.local.api.tags import check_tags
from byoa.local.control import spot, warm_pools
from byoa.local.control import training_record as record
from byoa.local.control.log_follower import LogService, mirror_path
from byoa.local.control.metric_series import MetricService, series_path
from byoa.local.control.replay import EndedSeries, EndedStream, LogReplay, MetricReplay
from byoa.local.control.spot import Interruption
from byoa.local.control.stop_causes import BY_SHUTDOWN
from byoa.local.control.training_cluster import KILL_SECONDS
from byoa.local.control.training_container import network_of
from byoa.local.control.training_host import GROUP
from byoa.local.control.training_request import check, complete
from byoa.local.control.training_run import TrainingRun, job_directory
from byoa.local.control.training_services import TrainingServices
from byoa.local.control.unsupported import raise_all, refused
from byoa.local.control.warm_pools import WarmPools
from byoa.local.errors import AwsError, ResourceInUse, ValidationException
from byoa.local.runners.base import Runner
from byoa.local.settings import Caller, Settings
from byoa.local.storage.buckets import Buckets
from byoa.local.storage.state import AlreadyExists, Row, State

CLOSE_SECONDS = 5.0  # from SIGTERM to SIGKILL when the service is shut down
UPLOAD_SECONDS = 60.0  # for what a stopped job has to upload then
_UPDATE_REFUSALS = {
    "ProfilerConfig": "a job's profiler is what it was submitted with; submit another job",
    "ProfilerRuleConfigurations": "rules are processing jobs, which are not run yet",
    "RemoteDebugConfig": "the job is a process of this machine, which any debugger attaches to",
}


class TrainingJobs:
    """The training operations. `start` adopts the jobs of an earlier server."""

    def __init__(
        self,
        state: State,
        buckets: Buckets,
        runner: Runner,
        settings: Settings,
        logs: LogService,
        metrics: MetricService,
        environment: Callable[[Caller, str], dict[str, str]],
    ) -> None:
        self._services = TrainingServices(
            settings, state, buckets, runner, logs, metrics, environment
        )
        self._state = state
        self._pools = WarmPools(self._services)
        self._lock = threading.Lock()
        self._runs: dict[str, TrainingRun] = {}  # by ARN
        self._closed = False
        self._replays: list[LogReplay | MetricReplay] = []
        self.operations: dict[str, Callable[[Caller, dict[str, Any]], dict[str, Any]]] = {
            "CreateTrainingJob": self.create,
            "DescribeTrainingJob": self.describe,
            "ListTrainingJobs": self.list,
            "StopTrainingJob": self.stop,
            "UpdateTrainingJob": self.update,
            "DeleteTrainingJob": self.delete,
        }

    # --- lifetime ---

    def start(self) -> None:
        """Go on with the jobs that an earlier server left, and clear up behind ended ones."""
        ended, series = [], []
        for row in self._state.list(record.KIND):
            if row.status not in record.TERMINAL:
                self._run(row)
                continue
            self._clear(row)
            self._pools.recover(row)
            ended += [
                EndedStream(
                    row.caller, GROUP, each.stream, self._log(row, each), row.document["ended"]
                )
                for each in record.all_entries(row)
            ]
            series.append(EndedSeries(row.caller, row.name, self._series(row)))
        self._replays = [
            LogReplay(self._services.logs, reversed(ended)),
            MetricReplay(self._services.metrics, reversed(series)),
        ]
        for each in self._replays:
            each.start()

    def close(self, timeout: float = CLOSE_SECONDS, *, keep_running: bool = False) -> None:
        """Stop the jobs: SIGTERM, SIGKILL after `timeout` seconds, artifacts uploaded, Stopped.

        With `keep_running` the containers run on, for the next server to adopt.
        """
        with self._lock:
            self._closed = True
            runs = list(self._runs.values())
        for replay in self._replays:
            replay.close()
        self._pools.keep_nothing()
        for run in runs:
            if keep_running:
                run.leave()
            else:
                run.stop(BY_SHUTDOWN, grace=timeout)
        deadline = time.monotonic() + timeout + KILL_SECONDS + UPLOAD_SECONDS
        for run in runs:
            run.join(max(0.0, deadline - time.monotonic()))
        self._pools.close()

    # --- operations ---

    def create(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Submit a job; it runs at once."""
        name = request["TrainingJobName"]
        existing = self._state.get(record.KIND, caller, name)
        if existing is not None:
            raise _in_use(existing)
        check(request, self._services.runner)
        tags = check_tags(request.get("Tags") or [])
        document = record.new(complete(request))
        row = Row(record.KIND, name, caller.region, caller.account,
                  caller.arn("training-job", name), 0.0, 0.0, "InProgress", document)
        record.transition(row, "Starting", "Starting the training job")
        if self._closed:
            raise AwsError("ServiceUnavailable", "The local service is shut down", status=503)
        try:
            row = self._state.create(record.KIND, caller, name, arn=row.arn,
                                     status=row.status, document=row.document)
        except AlreadyExists as error:
            raise _in_use(error.row) from None
        self._state.set_tags(row.arn, tags)
        self._run(row)
        return {"TrainingJobArn": row.arn}

    def describe(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        row = self._row(caller, request)
        return record.describe(row) | warm_pools.described(row)

    def list(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        rows, asked = self._state.list(record.KIND, caller), dict(request)
        if asked.pop("TrainingPlanArnEquals", None) is not None:
            rows = []  # no job here has one
        if (wanted := asked.pop("WarmPoolStatusEquals", None)) is not None:
            rows = [row for row in rows if _pool_status(row) == wanted]
        return page(rows, asked, name_key="TrainingJobName", default_order="Ascending",
                    summary=lambda row: record.summary(row) | warm_pools.described(row),
                    result_key="TrainingJobSummaries")

    def stop(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Stop a job; asking again while it is stopping changes nothing (TRAIN-154)."""
        row = self._row(caller, request)

        def change(row: Row) -> None:
            if row.status in record.TERMINAL:
                raise ValidationException(
                    f"The request was rejected because the training job is in status {row.status}."
                )
            if row.status != "Stopping":
                row.status = "Stopping"
                record.transition(row, "Stopping", "Stopping the training job")

        row = self._state.mutate(record.KIND, caller, row.name, change)
        with self._lock:
            run = self._runs.get(row.arn)
        if run is not None:
            run.stop()
        return {}

    def interrupt(self, caller: Caller, name: str, members: dict[str, Any]) -> dict[str, Any]:
        """Take a job's instances away, as spot's owner does: no operation of SageMaker's."""
        asked = Interruption.parse(members, notice=self._services.settings.stop_grace)
        row = self._row(caller, {"TrainingJobName": name})
        row = self._state.mutate(
            record.KIND, caller, name, lambda row: spot.request(row, asked)
        )
        with self._lock:
            run = self._runs.get(row.arn)
        if run is not None:
            run.interrupt(asked)
        return {"TrainingJobName": name, "SecondaryStatus": row.document["secondary"]}

    def update(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Change how long a job's warm pool is kept (TRAIN-213, TRAIN-218)."""
        name = request["TrainingJobName"]
        row = self._state.get(record.KIND, caller, name)
        if row is None:
            raise ValidationException(f"Could not find job to update with name {name}.")
        raise_all(refused(request, _UPDATE_REFUSALS))
        seconds = (request.get("ResourceConfig") or {}).get("KeepAlivePeriodInSeconds")
        if seconds is None:
            raise ValidationException(
                "UpdateTrainingJob is given nothing to change here; expected"
                " ResourceConfig.KeepAlivePeriodInSeconds."
            )
        self._pools.update(row, seconds)
        return {"TrainingJobArn": row.arn}

    def delete(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Delete an ended job's record, files and log; its artifacts stay in S3.

        A later job of the name would otherwise be shown with this one's log (WIRE-22).
        """
        row = self._row(caller, request)
        if row.status not in record.TERMINAL:
            raise ResourceInUse(
                f"The training job {row.name} is in status {row.status}; only a Completed, Failed"
                " or Stopped job can be deleted."
            )
        if warm_pools.is_available(row):
            raise ResourceInUse(
                f"The training job {row.name} retains a warm pool; end it by UpdateTrainingJob with"
                " ResourceConfig.KeepAlivePeriodInSeconds 0, then delete the job."
            )
        with self._lock:
            run = self._runs.pop(row.arn, None)
        if run is not None:
            run.join(KILL_SECONDS)
        self._state.delete(record.KIND, caller, row.name)
        shutil.rmtree(self._directory(row), ignore_errors=True)
        for each in record.all_entries(row):
            self._services.logs.delete_stream(caller, GROUP, each.stream)
        shutil.rmtree(self._series(row).parent, ignore_errors=True)  # and its logs
        return {}

    # --- within ---

    def _row(self, caller: Caller, request: dict[str, Any]) -> Row:
        row = self._state.get(record.KIND, caller, request["TrainingJobName"])
        if row is None:
            raise ValidationException("Requested resource not found.")
        return row

    def _run(self, row: Row) -> None:
        run = TrainingRun(self._services, row, self._pools)
        with self._lock:
            if self._closed:
                return  # the next server's
            self._runs = {arn: each for arn, each in self._runs.items() if not each.has_ended}
            self._runs[row.arn] = run
        run.start()

    def _clear(self, row: Row) -> None:
        """What a server that was killed at the end of a job did not come to remove."""
        runner, left = self._services.runner, []
        for each in record.host_entries(row).values():
            container = runner.adopt({"name": each.container})
            if container is not None:
                left.append(container)
        for container in left:
            if container.wait(0) is None:
                container.kill()
                container.wait(KILL_SECONDS)
            container.remove()
        if left:
            runner.release(network_of(row))
        if row.status != "Failed":
            shutil.rmtree(self._directory(row), ignore_errors=True)

    def _log(self, row: Row, entry: record.HostEntry) -> Path:
        return mirror_path(self._services.settings.home, row.caller, GROUP, entry.stream)

    def _series(self, row: Row) -> Path:
        return series_path(self._services.settings.home, row.caller, row.name)

    def _directory(self, row: Row) -> Path:
        return job_directory(self._services.settings.home, row.caller, row.name)


def _pool_status(row: Row) -> str | None:
    return (warm_pools.status(row) or {}).get("Status")


def _in_use(row: Row) -> ResourceInUse:
    return ResourceInUse(
        "Job name must be unique within an AWS account and region, and a job with this name"
        f" already exists ({row.arn})"
    )
