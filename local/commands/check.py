"""`byoa check`: runs any SageMaker image as the service would, and says what does not hold."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byoa.container.errors import ByoaError
from byoa.local.commands.options import command

if TYPE_CHECKING:
    from byoa.local.check.checks import Check
    from byoa.local.check.report import Report
    from byoa.local.check.runs import Result
    from byoa.local.check.trial import Samples, Trial, Waits

REPORTS = ("table", "json", "junit", "sarif")
LISTS = ("table", "json", "markdown")
NOT_CHECKED = 3  # exit code: nothing can be said of the image


def add(commands: Any) -> None:
    parser = command(
        commands, "check", run_check,
        help="run any SageMaker image as the service would, and say what does not hold",
        example="byoa check mine:latest --channel train=data/ --hyperparameters hp.json"
        " --request record.csv --content-type text/csv\n"
        "  byoa check --process nearest_centroid.py --channel train=digits.csv\n"
        "  byoa check mine:latest --only image --format sarif --output check.sarif\n"
        "exit code: 0 all holds but warnings, 1 an error (with --strict also a warning),"
        " 2 wrong usage, 3 it could not be checked",
    )
    parser.add_argument("image", nargs="?", help="name, tag, digest or id of an image")
    parser.add_argument("--process", metavar="ALGORITHM",
                        help="check an algorithm without Docker: a built-in's name, module:Class,"
                        " a file or a folder")
    parser.add_argument("--list", action="store_true", help="print the catalogue of checks")
    parser.add_argument("--only", action="append", default=[], metavar="GROUP|ID",
                        help="these checks and what they need; repeat for more")
    _add_samples(parser.add_argument_group(
        "samples", "without them, what can be told without is checked; none is written to"
    ))
    waits = parser.add_argument_group("waits")
    waits.add_argument("--training-seconds", type=_seconds, metavar="N",
                       help="that a training run on the samples may take (600)")
    waits.add_argument("--startup-seconds", type=_seconds, metavar="N",
                       help="that a server may take until /ping answers 200 (480)")
    waits.add_argument("--stop-seconds", type=_seconds, metavar="N",
                       help="from SIGTERM to SIGKILL (120 in training, 30 in hosting)")
    report = parser.add_argument_group("report")
    report.add_argument("--format", choices=sorted({*REPORTS, *LISTS}), default="table",
                        help="table (default), json, junit or sarif; markdown with --list")
    report.add_argument("--failures", "--quiet", action="store_true",
                        help="the table has only what does not hold, and the summary")
    report.add_argument("--strict", action="store_true",
                        help="take warnings for errors")
    report.add_argument("--output", type=Path, metavar="FILE",
                        help="write the report to a file; the table is printed as well")


def _add_samples(samples: Any) -> None:
    samples.add_argument("--channel", action="append", default=[], metavar="NAME=PATH",
                         help="a file or folder as an input channel; repeat for more")
    samples.add_argument("--channel-type", action="append", default=[], metavar="NAME=TYPE",
                         help="ContentType of a channel")
    samples.add_argument("--pipe", action="append", default=[], metavar="NAME",
                         help="a channel that the image reads in Pipe mode")
    samples.add_argument("--hyperparameters", type=Path, metavar="FILE",
                         help="a JSON object of hyperparameters")
    samples.add_argument("--hosts", type=int, choices=(1, 2), default=1,
                         help="2: the image trains on several hosts")
    samples.add_argument("--metric", action="append", default=[], metavar="NAME=REGEX",
                         help="a metric's expression, searched in the log; repeat for more")
    samples.add_argument("--request", type=Path, metavar="FILE", help="body for /invocations")
    samples.add_argument("--content-type", metavar="TYPE", help="media type of the request")
    samples.add_argument("--accept", metavar="TYPE", help="media type of the answer")
    samples.add_argument("--model", type=Path, metavar="PATH",
                         help="model folder or model.tar.gz to serve; else what training left")
    samples.add_argument("--environment", action="append", default=[], metavar="NAME=VALUE",
                         help="a variable of every container; repeat for more")
    samples.add_argument("--process-command", metavar="COMMAND", default="",
                         help="ContainerEntrypoint of a processing job, in one argument")


def run_check(args: argparse.Namespace) -> int:
    """0 where no error is found, 1 where one is, 3 where nothing could be checked."""
    try:
        return _run_check(args)
    except ByoaError as error:
        print(f"byoa: {error}", file=sys.stderr)
    except BrokenPipeError:
        raise
    except OSError as error:
        print(f"byoa: {error.strerror}: {error.filename or 'check'} [OS_ERROR]", file=sys.stderr)
    return NOT_CHECKED


def _run_check(args: argparse.Namespace) -> int:
    from byoa.local.check.catalogue import all_checks
    from byoa.local.check.checks import ERROR
    from byoa.local.check.runs import run_checks, select

    checks = all_checks()
    if args.strict:
        checks = [replace(each, level=ERROR) for each in checks]
    if args.list:
        print(_catalogue(args, checks), end="")
        return 0
    if (args.image is None) == (args.process is None):
        args.parser.error("name either an image or --process ALGORITHM")
    if args.format not in REPORTS:
        args.parser.error(f"--format {args.format} goes with --list")
    if args.failures and args.format != "table" and args.output is None:
        args.parser.error(f"--failures is of the table; --format {args.format} has all")
    try:
        wanted = select(checks, args.only)
        samples, waits = _samples(args), _waits(args)
    except ByoaError as error:
        args.parser.error(str(error))
    if args.output is not None:
        _try_to_write(args.output)
    started, clock = datetime.now(timezone.utc), time.monotonic()
    with _until_terminated(), _trial(args, samples, waits) as trial:
        with _Progress(len(wanted)) as progress:
            results = run_checks(
                trial, wanted, on_start=progress.starts, on_result=progress.ends
            )
        report = _report(trial, results, started, time.monotonic() - clock)
    _write(args, report)
    return 1 if report.failed(ERROR) else 0


def _catalogue(args: argparse.Namespace, checks: list[Check]) -> str:
    from byoa.local.check import json_report, table
    from byoa.local.check.runs import select

    if args.format not in LISTS:
        args.parser.error(f"--list has no format {args.format}; it has {', '.join(LISTS)}")
    try:
        chosen = select(checks, args.only)
    except ByoaError as error:
        args.parser.error(str(error))
    if args.format == "json":
        return json_report.render_catalogue(chosen)
    if args.format == "markdown":
        return table.render_markdown(chosen)
    return table.render_catalogue(chosen)


def _trial(args: argparse.Namespace, samples: Samples, waits: Waits) -> Trial:
    from byoa.local.check import killed
    from byoa.local.check.trial import Trial

    try:
        trial = Trial.of_image(args.image, samples, waits) if args.process is None \
            else Trial.of_algorithm(args.process, samples, waits)
    except ByoaError as error:
        if error.code == "DOCKER_UNAVAILABLE":
            error.remedy = f"{error.remedy}; or check an algorithm without an engine:" \
                " byoa check --process ALGORITHM"
        raise
    try:
        killed.sweep(trial.engine)
    except BaseException:
        trial.close()
        raise
    return trial


def _report(trial: Trial, results: list[Result], started: datetime, seconds: float) -> Report:
    from byoa.local.check.report import Report

    facts = trial.facts
    about = "" if facts is None else \
        f"{facts.os}/{facts.architecture}, {facts.size / 1000**3:.2f} GB, {facts.id[:19]}"
    kind = "algorithm" if facts is None else "image"
    return Report(trial.image, kind, about, results, started, seconds)


def _try_to_write(path: Path) -> None:
    """Raise OSError where the report could not be written: checks take minutes."""
    there = path.exists()
    if there and not path.is_file() and not path.is_dir():
        return  # a pipe or a terminal: opening it would be the writing
    with path.open("ab"):
        pass
    if not there:
        path.unlink()


def _write(args: argparse.Namespace, report: Report) -> None:
    from byoa.local.check import json_report, junit, sarif, table

    renders = {"json": json_report.render, "junit": junit.render, "sarif": sarif.render}
    if args.output is None and args.format != "table":
        print(renders[args.format](report), end="")
        return
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(table.render(report, colour=colour, failures=args.failures), end="")
    if args.output is not None:
        render = renders.get(args.format, table.render)
        args.output.write_text(render(report), encoding="utf-8")


# --- what the user gives --------------------------------------------------------------------------


def _samples(args: argparse.Namespace) -> Samples:
    from byoa.local.check.trial import Samples

    channels = {
        name: _there(Path(path), f"channel {name!r}")
        for name, path in _pairs(args.channel, "--channel", "train=digits.csv").items()
    }
    types = _pairs(args.channel_type, "--channel-type", "train=text/csv")
    for name in (*types, *args.pipe):
        if name not in channels:
            raise ByoaError("CHANNEL_UNKNOWN", f"channel {name!r} is not given",
                            remedy=f"--channel {name}=PATH")
    for option in ("content_type", "accept"):
        if getattr(args, option) is not None and args.request is None:
            raise ByoaError("OPTION_INVALID", f"--{option.replace('_', '-')} goes with --request")
    if args.request is not None and args.content_type is None:
        raise ByoaError("OPTION_MISSING", f"--request {args.request} has no media type",
                        expected="--content-type, such as text/csv")
    return Samples(
        channels=channels,
        channel_types=types,
        pipe=tuple(args.pipe),
        hyperparameters=_hyperparameters(args.hyperparameters),
        hosts=args.hosts,
        request=_there(args.request, "--request").read_bytes() if args.request else None,
        content_type=args.content_type,
        accept=args.accept,
        model=_there(args.model, "--model").resolve() if args.model else None,
        environment=_pairs(args.environment, "--environment", "LOG_LEVEL=debug"),
        process_command=tuple(shlex.split(args.process_command)),
        metrics=_metrics(args.metric),
    )


def _metrics(given: list[str]) -> dict[str, str]:
    from byoa.container.contract import MetricDefinition
    from byoa.local.control.metric_scraper import problem

    metrics = _pairs(given, "--metric", "'train:loss=loss: ([0-9.]+)'")
    for name, expression in metrics.items():
        if wrong := problem(MetricDefinition(name, expression)):
            raise ByoaError("OPTION_INVALID", f"--metric {name}: {expression!r} {wrong}")
    return metrics


def _waits(args: argparse.Namespace) -> Waits:
    from byoa.local.check.trial import Waits

    given = {
        "training_seconds": args.training_seconds,
        "startup_seconds": args.startup_seconds,
        "training_stop_seconds": args.stop_seconds,
        "hosting_stop_seconds": args.stop_seconds,
    }
    return Waits(**{name: value for name, value in given.items() if value is not None})


def _hyperparameters(path: Path | None) -> dict[str, str]:
    """Strings as they are, other values as the JSON that they are: a request has strings only."""
    if path is None:
        return {}
    try:
        document = json.loads(_there(path, "--hyperparameters").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ByoaError("OPTION_INVALID", f"{path} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ByoaError("OPTION_INVALID", f"{path} holds no JSON object",
                        expected='such as {"epochs": "10"}')
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in document.items()
    }


def _there(path: Path, what: str) -> Path:
    if not path.exists():
        raise ByoaError("FILE_MISSING", f"{what}: {path} does not exist")
    return path.absolute()


def _pairs(values: list[str], option: str, example: str) -> dict[str, str]:
    for each in values:
        if "=" not in each:
            raise ByoaError("OPTION_INVALID", f"{option} {each!r} has no '='",
                            expected=f"{option} {example}")
    return dict(each.split("=", 1) for each in values)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return value


# --- while it runs --------------------------------------------------------------------------------


@contextlib.contextmanager
def _until_terminated() -> Iterator[None]:
    """SIGTERM ends the command as Ctrl-C does: with its containers removed."""

    def stop(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Progress:
    """One line on a terminal's stderr that says what is being checked."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._failed = 0
        self._shown = sys.stderr.isatty()

    def starts(self, check: Check) -> None:
        failed = f", {self._failed} failed" if self._failed else ""
        self._show(f"{self._done + 1}/{self._total}{failed}: {check.title}")

    def ends(self, result: Result) -> None:
        self._done += 1
        self._failed += result.verdict.outcome == "fail"

    def _show(self, text: str) -> None:
        if self._shown:
            print(f"\r\x1b[K{text[:100]}", end="", file=sys.stderr, flush=True)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self._show("")
