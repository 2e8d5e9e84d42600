"""Checks of the log, from which people learn how a job goes and metrics are scraped."""

from __future__ import annotations

import re

from byoa.container.contract import MetricDefinition
from byoa.local.check import training_runs as runs
from byoa.local.check.checks import NotApplicable, Verdict, check, failed, passed, skipped
from byoa.local.check.training_stop import progress, stopped
from byoa.local.check.trial import Trial
from byoa.local.control.metric_scraper import MetricScraper

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_EARLY = 0.5  # of a run, by when a log that is not held back has begun
_SPREAD = 0.1  # of a run, over which its output comes
_STEPS = 3  # lines that make a progress


@check(
    "log-unbuffered",
    clause="TRAIN-196, TRAP-27",
    group="training",
    title="The log arrives while training runs, not at its end",
    cure="ENV PYTHONUNBUFFERED=1 in the Dockerfile, or print(…, flush=True)",
    needs=("train-exits-zero",),
)
def log_unbuffered(trial: Trial) -> Verdict:
    run = runs.plain(trial)
    if not run.outputs:
        return skipped("it prints nothing")
    try:
        stop = stopped(trial)
    except NotApplicable:  # the plain run alone can show that the log flows, not that it does not
        if _flows(run):
            return passed(f"the first line after {run.outputs[0]:.1f} of {run.seconds:.1f} s")
        return skipped("could not be told: the run is over as soon as its log begins; give"
                       " hyperparameters that train longer")
    if stop.silent is None:
        return passed("the log comes while it trains")
    held = progress(stop.run.log)
    if len(held) < _STEPS:
        return skipped(f"could not be told: it printed nothing for {stop.silent:.0f} s")
    return failed(
        f"a longer run printed nothing for {stop.silent:.0f} s and then, once it was stopped,"
        f" {len(held)} lines of progress at once: the log is held back, and lost when the job is"
        " killed", evidence="\n".join(held[:3]),
    )


def _flows(run: runs.TrainingRun) -> bool:
    first, last = run.outputs[0], run.outputs[-1]
    return first < _EARLY * run.seconds or last - first > _SPREAD * run.seconds


@check(
    "log-lines",
    clause="TRAIN-190, TRAP-27",
    group="training",
    level="warning",
    title="The log has plain lines: no colours, no progress bars that rewrite a line",
    cure="print one line a step; switch progress bars off where there is no terminal (tqdm:"
    " disable=None; TQDM_DISABLE=1) and colours too (NO_COLOR=1)",
    needs=("train-exits-zero",),
)
def log_lines(trial: Trial) -> Verdict:
    for line in runs.plain(trial).log.split("\n"):
        if "\r" in line.rstrip("\r"):
            pieces = line.count("\r")
            return failed(
                f"a line is rewritten {pieces} times with carriage returns: CloudWatch shows one"
                " long line, and a metric's expression finds its first value alone",
                evidence=repr(line[:160]),
            )
        if _ANSI.search(line):
            return failed(
                "a line has ANSI escape sequences, which come between a metric's name and value",
                evidence=repr(line[:160]),
            )
    return passed()


@check(
    "metrics-found",
    clause="TRAIN-190, TRAP-27",
    group="training",
    level="warning",
    title="Every metric's expression finds a number in the log",
    cure="print name=value on a line of its own, as run.metrics.log does, and let the expression be"
    " name=([0-9.eE+-]+)",
    needs=("train-exits-zero",),
)
def metrics_found(trial: Trial) -> Verdict:
    definitions = [MetricDefinition(*each) for each in trial.samples.metrics.items()]
    if not definitions:
        return skipped("give the job's expressions by --metric NAME=REGEX")
    scraper = MetricScraper(definitions)
    for line in runs.plain(trial).log.split("\n"):
        scraper.scrape(0.0, line)
    if notes := scraper.notes():
        return failed(notes[0], evidence="\n".join(notes[1:]))
    return passed(", ".join(f"{each['MetricName']} {each['Value']:.6g}" for each in scraper.final))


@check(
    "log-utf8",
    clause="TRAIN-190",
    group="training",
    level="warning",
    title="The log is UTF-8",
    cure="ENV LANG=C.UTF-8 PYTHONIOENCODING=utf-8 in the Dockerfile",
    needs=("train-exits-zero",),
)
def log_utf8(trial: Trial) -> Verdict:
    for line in runs.plain(trial).log.split("\n"):
        if "\ufffd" in line:
            return failed("a line of the log is not UTF-8", evidence=repr(line[:160]))
    return passed()
