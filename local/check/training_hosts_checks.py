"""Checks of training on several hosts: late names, rank by position, files of one's own."""

from __future__ import annotations

import filecmp
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from byoa.container.contract import Layout
from byoa.local.check import training_runs
from byoa.local.check.box import Box
from byoa.local.check.checks import NotApplicable, Verdict, check, failed, passed
from byoa.local.check.training_causes import why
from byoa.local.check.training_runs import TrainingRun
from byoa.local.check.trial import Trial

_ORDINARY = ("algo-1", "algo-2")
_BY_NAME = ("algo-10", "algo-2")  # in the service's order, that of a dictionary (TRAIN-62)
_SLOWER = 2.0  # how much longer than alone several hosts may take, beside the wait for names
_START_SECONDS = 30.0


@dataclass(frozen=True)
class Cluster:
    """One run on several hosts."""

    runs: dict[str, TrainingRun]  # by host name
    delay: float  # seconds from the first host's start to the last one's

    @property
    def succeeded(self) -> bool:
        return all(each.succeeded for each in self.runs.values())

    def culprit(self) -> tuple[str, TrainingRun]:
        """The host that did not succeed; one that ended with an error rather than one that hung."""
        bad = [(name, run) for name, run in self.runs.items() if not run.succeeded]
        bad.sort(key=lambda item: item[1].exit is None)
        return bad[0]


def _cluster(trial: Trial, hosts: Sequence[str], delay: float) -> Cluster:
    """Run on `hosts`; the last one, and with it its name, comes `delay` seconds later."""
    if trial.samples.hosts < 2:
        raise NotApplicable("whether the image trains on several hosts is not known; use --hosts 2")
    network = trial.network()
    boxes: dict[str, Box] = {}
    begun = time.monotonic()
    for name in hosts:
        layout = Layout(trial.new_ml(host=name, hosts=hosts))
        training_runs.without_manifests(layout)
        if name == hosts[-1]:
            boxes[hosts[0]].wait(delay)
        boxes[name] = training_runs.start(trial, layout.root, network=network, host=name)
    alone = training_runs.plain(trial).seconds
    limit = min(trial.limits.training_seconds, delay + _START_SECONDS + _SLOWER * alone)
    return Cluster(_ends(boxes, begun, limit), delay)


def _ends(boxes: dict[str, Box], begun: float, limit: float) -> dict[str, TrainingRun]:
    """Wait for all hosts; once one has failed the others are stopped, as the service does."""
    while True:
        ended = {name: box.wait(training_runs.LOOK_SECONDS) for name, box in boxes.items()}
        late = time.monotonic() - begun > limit
        if late or all(ended.values()) or any(each and each.code for each in ended.values()):
            seconds = time.monotonic() - begun
            return {
                name: training_runs.record(box, ended[name], seconds, limit, [])
                for name, box in boxes.items()
            }


def _late(trial: Trial) -> Cluster:
    return trial.memo(
        "cluster:late", lambda: _cluster(trial, _ORDINARY, trial.limits.peer_seconds)
    )


@check(
    "hosts-late-names",
    clause="CHK-13, TRAIN-65, TRAP-16",
    group="training",
    title="Two hosts train although the other one's name resolves late",
    cure="retry the resolution of every name in resourceconfig.json's hosts, for up to 15 minutes,"
    " before connecting",
    needs=("train-exits-zero",),
)
def hosts_late_names(trial: Trial) -> Verdict:
    cluster = _late(trial)
    if cluster.succeeded:
        return passed(f"{_ORDINARY[1]} came {cluster.delay:g} s after {_ORDINARY[0]}")
    name, run = cluster.culprit()
    return failed(
        f"{_ORDINARY[1]} came {cluster.delay:g} s after {_ORDINARY[0]}, and {name} did not"
        f" succeed: {why(run, trial.facts).cause}", evidence=run.tail(),
    )


@check(
    "hosts-own-files",
    clause="TRAIN-132, TRAP-22",
    group="training",
    title="No two hosts leave different files of the same name in /opt/ml/model",
    cure="save the model on the first host alone (current_host == hosts[0]), or put the rank into"
    " the names",
    needs=("hosts-late-names",),
)
def hosts_own_files(trial: Trial) -> Verdict:
    seen: dict[str, tuple[str, Path]] = {}
    for host, run in _late(trial).runs.items():
        for path in run.model_files():
            whole = run.layout.model / path
            if not whole.is_file():
                continue
            other, its = seen.setdefault(str(path), (host, whole))
            if not filecmp.cmp(its, whole, shallow=False):
                return failed(
                    f"{other} and {host} both leave /opt/ml/model/{path}, with different content:"
                    " the archives are merged, and either may win"
                )
    if not seen:
        return failed("no host leaves a model")
    return passed(f"{len(seen)} files")


@check(
    "hosts-rank-by-position",
    clause="TRAIN-62, TRAP-15, DIST-10",
    group="training",
    title="A host's rank is its position in `hosts`, not the number in its name",
    cure="rank = hosts.index(current_host); the leader is hosts[0]",
    needs=("hosts-late-names",),
)
def hosts_rank_by_position(trial: Trial) -> Verdict:
    cluster = _cluster(trial, _BY_NAME, 0.0)
    listed = list(_BY_NAME)
    if not cluster.succeeded:
        name, run = cluster.culprit()
        return failed(
            f"with hosts {listed} {name} does not succeed: {why(run, trial.facts).cause}",
            evidence=run.tail(),
        )
    if not any(run.model_files() for run in cluster.runs.values()):
        return failed(f"with hosts {listed} no host takes itself for the first and saves a model")
    return passed()
