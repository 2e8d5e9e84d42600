"""`byoa jobs`, `endpoints`, `logs`: what the local SageMaker has, as its API tells it."""

from __future__ import annotations

import argparse
import difflib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from byoa.container.errors import ByoaError
from byoa.local.client import Client, ServerError
from byoa.local.commands.options import add_home, add_json, command, settings
from byoa.local.control.instance_groups import hosts_of

FOLLOW_SECONDS = 0.5
_UNTOLD = "AlgorithmError: , exit code: "  # the service's words where it wrote no failure file
TRANSIENT = ("InProgress", "Stopping", "Creating", "Updating", "Deleting")


def add(commands: Any) -> None:
    jobs = command(
        commands, "jobs", run_jobs, help="list training jobs, or describe one",
        example="byoa jobs digits-1 --json",
    )
    jobs.add_argument("name", nargs="?", help="describe this job")
    endpoints = command(
        commands, "endpoints", run_endpoints, help="list endpoints, or describe one",
        example="byoa endpoints",
    )
    endpoints.add_argument("name", nargs="?", help="describe this endpoint")
    logs = command(
        commands, "logs", run_logs, help="print the log of a training job or an endpoint",
        example="byoa logs digits-1 --follow",
    )
    logs.add_argument("name", help="a training job or an endpoint")
    logs.add_argument("--follow", "-f", action="store_true", help="go on until it has ended")
    for parser in (jobs, endpoints, logs):
        add_home(parser)
        parser.add_argument("--region", help="region to look in (BYOA_REGION, us-east-1)")
        add_json(parser)


def _client(args: argparse.Namespace) -> Client:
    chosen = settings(args)
    return Client.find(chosen.home, chosen.region)


def run_jobs(args: argparse.Namespace) -> int:
    server = _client(args)
    if args.name:
        job = describe_job(server, args.name)
        shown = _show(args, job)
        if not args.json and job.get("FailureReason", "").startswith(_UNTOLD):
            print(f"\nThe container did not say why: see the end of `byoa logs {args.name}`.")
        return shown
    jobs = server.pages("ListTrainingJobs", "TrainingJobSummaries")
    rows = [
        (
            job["TrainingJobName"],
            job["TrainingJobStatus"],
            job.get("SecondaryStatus", ""),
            _time(job["CreationTime"]),
            f"{job.get('TrainingEndTime', time.time()) - job['CreationTime']:.1f} s",
        )
        for job in jobs
    ]
    return _table(args, jobs, ("NAME", "STATUS", "SECONDARY", "CREATED", "TOOK"), rows)


def run_endpoints(args: argparse.Namespace) -> int:
    server = _client(args)
    if args.name:
        return _show(args, _describe_endpoint(server, args.name))
    endpoints = server.pages("ListEndpoints", "Endpoints")
    rows = [
        (each["EndpointName"], each["EndpointStatus"], _time(each["CreationTime"]))
        for each in endpoints
    ]
    return _table(args, endpoints, ("NAME", "STATUS", "CREATED"), rows)


def run_logs(args: argparse.Namespace) -> int:
    server = _client(args)
    log = _find_log(server, args.name)
    tokens: dict[str, str] = {}
    while True:
        # Asked before the log is read: what is written until the end is then printed.
        ended = not (args.follow and log.grows())
        for stream in _streams(server, log.group, log.prefix):
            _print_stream(server, args, log, stream, tokens)
        if ended:
            return 0
        time.sleep(FOLLOW_SECONDS)


@dataclass(frozen=True)
class _Log:
    """The streams of a group whose names begin with `prefix`; `grows` tells whether more is to
    come. A job of several `hosts` has streams of each."""

    group: str
    prefix: str
    grows: Callable[[], bool]
    hosts: tuple[str, ...] = ()

    def head(self, stream: str) -> str:
        """What goes before a stream's lines: whose they are, where they may be several hosts'."""
        if len(self.hosts) < 2:
            return ""
        # <job>/<host>-<number> (WIRE-40)
        host = stream.removeprefix(self.prefix).rpartition("-")[0]
        return f"{host:<{max(map(len, self.hosts))}} | "


def _find_log(server: Client, name: str) -> _Log:
    jobs = [each["TrainingJobName"] for each in
            server.pages("ListTrainingJobs", "TrainingJobSummaries")]
    endpoints = [each["EndpointName"] for each in server.pages("ListEndpoints", "Endpoints")]
    if name in jobs:
        return _Log(
            "/aws/sagemaker/TrainingJobs", f"{name}/",
            lambda: describe_job(server, name)["TrainingJobStatus"] in TRANSIENT,
            hosts_of(describe_job(server, name)),
        )
    if name in endpoints:
        return _Log(f"/aws/sagemaker/Endpoints/{name}", "", lambda: name in [
            each["EndpointName"] for each in server.pages("ListEndpoints", "Endpoints")
        ])
    raise unknown("training job or endpoint", name, [*jobs, *endpoints])


def _streams(server: Client, group: str, prefix: str) -> list[str]:
    members = {"logGroupName": group} | ({"logStreamNamePrefix": prefix} if prefix else {})
    try:
        streams = server.call("DescribeLogStreams", "logs", **members)["logStreams"]
    except ServerError as error:
        if error.code == "ResourceNotFoundException":
            return []
        raise
    return [each["logStreamName"] for each in streams]


def _print_stream(
    server: Client, args: argparse.Namespace, log: _Log, stream: str, tokens: dict[str, str]
) -> None:
    head = log.head(stream)
    while True:
        more = {"nextToken": tokens[stream]} if stream in tokens else {}
        page = server.call(
            "GetLogEvents", "logs", logGroupName=log.group, logStreamName=stream,
            startFromHead=True, **more,
        )
        tokens[stream] = page["nextForwardToken"]
        for event in page["events"]:
            print(
                json.dumps({"stream": stream, **event}) if args.json
                else f"{head}{event['message']}",
                flush=True,
            )
        if not page["events"]:
            return


def describe_job(server: Client, name: str) -> dict[str, Any]:
    try:
        return server.call("DescribeTrainingJob", TrainingJobName=name)
    except ServerError as error:
        if "not found" not in error.message:
            raise
    jobs = server.pages("ListTrainingJobs", "TrainingJobSummaries")
    raise unknown("training job", name, [each["TrainingJobName"] for each in jobs])


def _describe_endpoint(server: Client, name: str) -> dict[str, Any]:
    try:
        return server.call("DescribeEndpoint", EndpointName=name)
    except ServerError as error:
        if "Could not find" not in error.message:
            raise
    endpoints = server.pages("ListEndpoints", "Endpoints")
    raise unknown("endpoint", name, [each["EndpointName"] for each in endpoints])


def unknown(kind: str, name: str, known: list[str]) -> ByoaError:
    """There is none of this name: the one that was meant, or those that there are."""
    lower = {each.lower(): each for each in known}
    near = [lower[each] for each in difflib.get_close_matches(name.lower(), lower, 1, 0.5)]
    remedy = f"did you mean {near[0]!r}?" if near else (
        f"there are: {', '.join(known[-10:])}" if known else f"there is no {kind} yet"
    )
    return ByoaError("NAME_UNKNOWN", f"there is no {kind} named {name!r}", remedy=remedy)


def _show(args: argparse.Namespace, document: dict[str, Any]) -> int:
    if args.json:
        print(json.dumps(document, indent=1))
        return 0
    for key, value in document.items():
        if key.endswith("Time") and isinstance(value, int | float):
            value = _time(value)
        shown = value if isinstance(value, str | int | float) else json.dumps(value)
        print(f"{key:<28} {shown}")
    return 0


def _table(
    args: argparse.Namespace, entries: list[dict[str, Any]], head: tuple[str, ...],
    rows: Sequence[tuple[str, ...]],
) -> int:
    print(json.dumps(entries, indent=1) if args.json else "\n".join(table(head, rows)))
    return 0


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The lines of a table whose columns are as wide as they have to be."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [head, *rows]
    ]


def _time(epoch: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(epoch))
