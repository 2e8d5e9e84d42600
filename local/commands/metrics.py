"""`byoa metrics`: what a job has measured, as numbers, as plots and for other programs.

Everything is read from the state directory: it works while the job runs, after it, and when no
server runs any more.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from byoa.container.errors import ByoaError
from byoa.local.commands.box import algorithm_environment
from byoa.local.commands.options import add_home, add_json, command, settings
from byoa.local.commands.plot import number, plot
from byoa.local.commands.records import TRANSIENT, table, unknown

if TYPE_CHECKING:  # no database before there is a job to look for
    from byoa.local.control.metric_series import Point
    from byoa.local.settings import Settings
    from byoa.local.storage.state import Row, State

FOLLOW_SECONDS = 0.5
DEFINITIONS_SECONDS = 120.0  # to import an algorithm and what it needs
PANEL_COLUMNS, PANEL_ROWS = 56, 8  # the least width and the height of a plot
STEPS_SHARE = 0.8  # of the values, that have a step of their own where steps are the axis
CLEAR = "\x1b[H\x1b[2J\x1b[3J"
FIELDS = ("metric", "kind", "host", "time", "step", "value")


def add(commands: Any) -> None:
    parser = command(
        commands, "metrics", run, help="show what a training job has measured",
        example="byoa metrics digits-1 --follow",
    )
    parser.add_argument("job", nargs="?", help="a training job")
    parser.add_argument("names", nargs="*", metavar="METRIC", help="only these metrics")
    parser.add_argument("--system", action="store_true",
                        help="CPU, memory, disk and GPU of the job's hosts instead")
    parser.add_argument("--follow", "-f", action="store_true", help="go on until it has ended")
    parser.add_argument("--plot", action="store_true", help="plot, though this is no terminal")
    parser.add_argument("--csv", action="store_true", help="print every value as CSV")
    parser.add_argument("--definitions", metavar="ALGORITHM",
                        help="print the MetricDefinitions of what an algorithm logs, as JSON: a"
                        " file with an Algorithm class, module:Class, or a built-in's name")
    add_home(parser)
    parser.add_argument("--region", help="region to look in (BYOA_REGION, us-east-1)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    if args.definitions:
        return _print_definitions(args.definitions)
    if not args.job:
        raise ByoaError(
            "OPTION_INVALID", "no job is named", expected="byoa metrics JOB",
            remedy="list them with `byoa jobs`",
        )
    from byoa.local.storage.state import State

    chosen = settings(args)
    database = chosen.home / "state.sqlite"
    if not database.exists():
        raise unknown("training job", args.job, [])
    state = State(database)
    try:
        return _follow(args, chosen, state) if args.follow else _show(args, chosen, state)
    finally:
        state.close()


# --- one job --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Series:
    """The values of one metric, over all hosts (TRAIN-194), or of one host for its utilisation."""

    name: str
    points: Sequence[Point]

    @property
    def values(self) -> list[float]:
        return [each.value for each in self.points]


def _row(chosen: Settings, state: State, job: str) -> Row:
    from byoa.local.settings import Caller

    caller = Caller(chosen.account, chosen.region)
    row = state.get("training-job", caller, job)
    if row is None:
        raise unknown("training job", job, [row.name for row in state.list("training-job", caller)])
    return row


def _read(chosen: Settings, row: Row, offset: int = 0) -> tuple[list[Point], int]:
    from byoa.local.control.metric_series import read, series_path

    return read(series_path(chosen.home, row.caller, row.name), offset)


def _show(args: argparse.Namespace, chosen: Settings, state: State) -> int:
    row = _row(chosen, state, args.job)
    every, _ = _read(chosen, row)
    _check_names(args, every)
    points = _chosen(args, every)
    if args.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(FIELDS)
        writer.writerows(_cells(each) for each in points)
    elif args.json:
        print(json.dumps(_document(args, row, points), indent=1))
    else:
        print("\n".join(_report(args, row, points)))
    return 0


def _follow(args: argparse.Namespace, chosen: Settings, state: State) -> int:
    """Until the job has ended: on a terminal the picture of now, elsewhere each value as it
    comes."""
    seen: list[Point] = []
    offset, screen = 0, sys.stdout.isatty() and not (args.csv or args.json)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if args.csv:
        writer.writerow(FIELDS)
    while True:
        row = _row(chosen, state, args.job)  # before the values: then none is missed at the end
        ended = row.status not in TRANSIENT
        found, offset = _read(chosen, row, offset)
        points = _chosen(args, found)
        seen += points
        if screen:
            sys.stdout.write(CLEAR + "\n".join(_report(args, row, seen)) + "\n")
        else:
            for each in points:
                if args.csv:
                    writer.writerow(_cells(each))
                elif args.json:
                    print(json.dumps(_point(each) | {"metric": each.name}))
                else:
                    print(_line(each))
        sys.stdout.flush()
        if ended:
            _check_names(args, seen)
            if not screen and not args.csv and not args.json:
                print("\n".join(_report(args, row, seen)))
            return 0
        time.sleep(FOLLOW_SECONDS)


def _chosen(args: argparse.Namespace, points: Sequence[Point]) -> list[Point]:
    from byoa.local.control.metric_series import SYSTEM

    kept = [each for each in points if (each.kind == SYSTEM) == args.system]
    if not args.names:
        return kept
    return [each for each in kept if each.name in args.names]


def _check_names(args: argparse.Namespace, points: Sequence[Point]) -> None:
    from byoa.local.control.metric_series import SYSTEM

    known = sorted({each.name for each in points if (each.kind == SYSTEM) == args.system})
    for name in args.names:
        if name not in known:
            raise unknown("metric", name, known)


def _series(points: Iterable[Point], *, by_host: bool) -> list[Series]:
    """In the order in which the metrics came."""
    found: dict[str, list[Point]] = {}
    for each in points:
        found.setdefault(f"{each.name} {each.host}" if by_host else each.name, []).append(each)
    return [Series(name, each) for name, each in found.items()]


# --- for people -----------------------------------------------------------------------------------


def _report(args: argparse.Namespace, row: Row, points: Sequence[Point]) -> list[str]:
    from byoa.local.control.metric_series import PRINTED

    lines = [f"{row.name}: {row.status}/{row.document['secondary']}"]
    series = _series(points, by_host=args.system)
    if series:
        rows = [
            (each.name, str(len(each.points)), number(min(each.values)), number(max(each.values)),
             number(each.values[-1]), _step(each.points[-1]))
            for each in series
        ]
        lines += ["", *table(("METRIC", "COUNT", "MIN", "MAX", "LAST", "STEP"), rows)]
    else:
        lines += ["", "nothing has been measured" + (
            ": the job has ended too soon" if args.system and row.status not in TRANSIENT else ""
        )]
    if sys.stdout.isatty() or args.plot:
        lines += _plots(series)
    peaks = row.document.get("peak_memory") or {}
    if args.system and any(peaks.values()):
        lines += ["", *(f"peak memory of {host}: {_bytes(most)}" for host, most in peaks.items())]
    undefined = sorted({each.name for each in points if each.kind == PRINTED})
    if undefined:
        lines += ["", f"no MetricDefinition names {', '.join(undefined)}, which the service would"
                  " not show: `byoa metrics --definitions ALGORITHM` prints what to ask for"]
    lines += ["", *row.document["notes"]] if row.document.get("notes") else []
    return lines


def _plots(series: Sequence[Series]) -> list[str]:
    drawn = [each for each in series if len(each.points) > 1]
    if not drawn:
        return []
    width = shutil.get_terminal_size((100, 24)).columns
    abreast = max(1, min(len(drawn), width // PANEL_COLUMNS))
    panel = width // abreast - 2
    lines = []
    for start in range(0, len(drawn), abreast):
        panels = [_panel(each, panel) for each in drawn[start : start + abreast]]
        lines.append("")
        for together in zip(*panels, strict=True):
            lines.append("  ".join(line.ljust(panel) for line in together).rstrip())
    return lines


def _panel(series: Series, width: int) -> list[str]:
    points, labels = _axis(series.points)
    unicode = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    drawing = plot(points, width=width, height=PANEL_ROWS, x_labels=labels, unicode=unicode)
    return [series.name.center(width).rstrip(), *drawing]


def _axis(points: Sequence[Point]) -> tuple[list[tuple[float, float]], tuple[str, str]]:
    """The values over their steps, or over the time; and what is said of both ends."""
    steps = sorted({each.step for each in points if each.step is not None})
    # A step that begins again, as in each epoch, is no axis; the best one may be told once more.
    if len(steps) >= max(2, STEPS_SHARE * len(points)):
        known = [(float(each.step), each.value) for each in points if each.step is not None]
        return sorted(known, key=lambda point: point[0]), (f"step {steps[0]}", str(steps[-1]))
    first, last = min(each.time for each in points), max(each.time for each in points)
    if first < last:
        timed = sorted(points, key=lambda each: each.time)
        return [(each.time, each.value) for each in timed], ("0 s", f"{last - first:.1f} s")
    ordered = [(float(number), each.value) for number, each in enumerate(points)]
    return ordered, ("value 1", str(len(points)))


def _line(point: Point) -> str:
    moment = time.strftime("%H:%M:%S", time.localtime(point.time))
    step = "" if point.step is None else f"  step {point.step}"
    return f"{moment}  {point.host}  {point.name} {number(point.value)}{step}"


def _step(point: Point) -> str:
    return "" if point.step is None else str(point.step)


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


# --- for programs ---------------------------------------------------------------------------------


def _cells(point: Point) -> tuple[Any, ...]:
    step = "" if point.step is None else point.step
    return point.name, point.kind, point.host, round(point.time, 3), step, point.value


def _point(point: Point) -> dict[str, Any]:
    return {"time": point.time, "host": point.host, "step": point.step, "value": point.value}


def _document(args: argparse.Namespace, row: Row, points: Sequence[Point]) -> dict[str, Any]:
    return {
        "job": row.name,
        "status": row.status,
        "metrics": [
            {
                "name": each.points[0].name,
                "kind": each.points[0].kind,
                "count": len(each.points),
                "min": min(each.values),
                "max": max(each.values),
                "last": each.values[-1],
                "step": each.points[-1].step,
                "points": [_point(point) for point in each.points],
            }
            for each in _series(points, by_host=args.system)
        ],
        "peak_memory_bytes": row.document.get("peak_memory", {}),
        "notes": row.document.get("notes", []),
    }


def _print_definitions(algorithm: str) -> int:
    """Asked of the algorithm itself, in a process of its own: no algorithm is imported here."""
    try:
        said = subprocess.run(
            [sys.executable, "-m", "byoa.algorithms", "definitions"],
            env={**os.environ, **algorithm_environment(algorithm)},
            capture_output=True, text=True, timeout=DEFINITIONS_SECONDS, check=False,
        )
    except subprocess.TimeoutExpired:
        raise ByoaError(
            "ALGORITHM_SLOW", f"{algorithm} is not imported within {DEFINITIONS_SECONDS:.0f} s"
        ) from None
    sys.stderr.write(said.stderr)
    sys.stdout.write(said.stdout)
    return said.returncode
