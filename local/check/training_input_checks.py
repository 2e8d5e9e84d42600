"""Checks of what training may find at its start: configuration, hyperparameters, data, network."""

from __future__ import annotations

from byoa.container.contract import (
    HYPERPARAMETERS_FILE,
    METRICS_FILE,
    RESOURCE_FILE,
    TUNING_HYPERPARAMETER,
    Layout,
    dump,
    write_hyperparameters,
)
from byoa.local.check import training_runs as runs
from byoa.local.check.checks import NotApplicable, Verdict, check, failed, passed, skipped
from byoa.local.check.training_causes import needs_network, verdict, why
from byoa.local.check.training_variants import OLDER_LACKS, requoted
from byoa.local.check.training_variants import run as variant
from byoa.local.check.trial import Trial


def _trains(trial: Trial, name: str, given: str) -> Verdict:
    """That a variant of the plain run, which succeeded, succeeds too."""
    run = variant(trial, name)
    if not run.succeeded:
        told = why(run, trial.facts)
        return failed(f"{given} it fails: {told.cause}", evidence=run.tail())
    if not run.model_files() and runs.plain(trial).model_files():
        return failed(f"{given} it ends with exit code 0 and leaves no model", evidence=run.tail())
    return passed()


@check(
    "older-config",
    clause="CHK-04, TRAIN-64, TRAIN-75, TRAP-13",
    group="training",
    title="Training reads a configuration without the optional files and keys",
    cure="document.get(key, default); every file but hyperparameters.json, inputdataconfig.json and"
    " resourceconfig.json may be absent",
    needs=("train-exits-zero",),
)
def older_config(trial: Trial) -> Verdict:
    return _trains(
        trial, "older-config",
        f"without {', '.join(OLDER_LACKS)} in {RESOURCE_FILE} and {METRICS_FILE}",
    )


@check(
    "unknown-config",
    clause="CHK-04, TRAIN-64, TRAIN-75",
    group="training",
    title="Training passes over configuration files and keys that it does not know",
    cure="read the keys that are needed by name; never list /opt/ml/input/config nor pass a whole"
    " document on as keyword arguments",
    needs=("train-exits-zero",),
)
def unknown_config(trial: Trial) -> Verdict:
    return _trains(
        trial, "unknown-config", "with unknown files and keys in /opt/ml/input/config"
    )


@check(
    "hyperparameters-quoted",
    clause="CHK-05, TRAIN-42, TRAIN-43, TRAP-12",
    group="training",
    level="warning",
    title='Hyperparameters are understood with inner quotes and without: "\\"10\\"" and "10"',
    cure="decode each value: try json.loads(value), keep the string where that fails, and convert"
    " what comes out, str or not, with int() or float()",
    needs=("train-exits-zero",),
)
def hyperparameters_quoted(trial: Trial) -> Verdict:
    given = trial.samples.hyperparameters
    if not given:
        return skipped("no hyperparameters were given; use --hyperparameters")
    return _trains(
        trial, "hyperparameters-quoted",
        f"with {HYPERPARAMETERS_FILE} {dump(requoted(given))[:200]}",
    )


@check(
    "hyperparameters-of-tuning",
    clause="TRAIN-44, HPO-01",
    group="training",
    title=f"Training passes over {TUNING_HYPERPARAMETER}, which tuning jobs add",
    cure=f"leave {TUNING_HYPERPARAMETER} and sagemaker_… names out before validating",
    needs=("train-exits-zero",),
)
def hyperparameters_of_tuning(trial: Trial) -> Verdict:
    return _trains(
        trial, "hyperparameters-of-tuning", f"with the hyperparameter {TUNING_HYPERPARAMETER}"
    )


@check(
    "hyperparameters-empty",
    clause="TRAIN-30, TRAIN-40, FIX-01",
    group="training",
    title="With `{}` as hyperparameters training uses defaults or says what is missing",
    cure="give every hyperparameter a default, or write to the failure file which one is missing",
    needs=("train-exits-zero",),
)
def hyperparameters_empty(trial: Trial) -> Verdict:
    given = trial.samples.hyperparameters
    if not given:
        return passed("the samples have none")

    def empty(layout: Layout) -> None:
        runs.without_manifests(layout)
        write_hyperparameters(layout, {})

    run = runs.run(trial, "empty-hyperparameters", empty)
    if run.succeeded:
        return passed("it has defaults")
    if run.exit is None:
        return skipped(f"with its defaults it trains for longer than {run.limit:g} s")
    told = run.layout.failure.read_bytes() if run.layout.failure.is_file() else b""
    text = told.decode("utf-8", "replace")
    named = [name for name in given if name in text]
    if named:
        return passed(f"it needs {', '.join(named)}, and says so")
    what = f"the failure file says {text.strip()[:120]!r}" if text.strip() else "no failure file"
    return failed(
        f"with {{}} it ends with exit code {run.exit.code} and names no hyperparameter: {what}",
        evidence=run.tail(),
    )


@check(
    "manifest-files",
    clause="TRAIN-31, TRAP-17",
    group="training",
    title="Training passes over what lies beside its channels in /opt/ml/input/data",
    cure="take the channels from inputdataconfig.json (or SM_CHANNELS), never from a listing of"
    " /opt/ml/input/data: the service puts <channel>-manifest files there",
    needs=("train-exits-zero",),
)
def manifest_files(trial: Trial) -> Verdict:
    if not trial.samples.channels:
        return skipped("no channel was given; use --channel")
    names = ", ".join(f"{name}-manifest" for name in trial.samples.channels)
    return _trains(trial, "manifest-files", f"with the files {names} in /opt/ml/input/data")


@check(
    "read-only-data",
    clause="TRAIN-93, TRAP-20",
    group="training",
    title="Training reads channels that cannot be written to, as FastFile mounts are",
    cure="write caches, indexes and unpacked files to /tmp, never into /opt/ml/input/data",
    needs=("train-exits-zero",),
)
def read_only_data(trial: Trial) -> Verdict:
    if not trial.samples.channels:
        return skipped("no channel was given; use --channel")
    return _trains(trial, "read-only-data", "with read-only channels")


@check(
    "network-isolation",
    clause="CHK-16, TRAIN-12, TRAP-51, TRAP-52",
    group="training",
    title="Training works without a network",
    cure="install dependencies when the image is built, and call neither S3 nor the credentials'"
    " address at the start; or submit without EnableNetworkIsolation",
    needs=("train-exits-zero",),
)
def network_isolation(trial: Trial) -> Verdict:
    run = variant(trial, "network-isolation")
    if run.succeeded:
        return passed()
    line = needs_network(run)
    told = why(run, trial.facts)
    if run.exit is None:
        waits = f"; it waits for the network: {line}" if line else ""
        return failed(
            f"without a network it hangs: it still ran after {run.limit:g} s, and took"
            f" {runs.plain(trial).seconds:.1f} s with one{waits}", evidence=run.tail(),
        )
    if line:
        return failed(f"without a network it fails: {line}", evidence=run.tail())
    return verdict(run, told)


# --- Pipe mode ------------------------------------------------------------------------------------


@check(
    "pipe-epochs",
    clause="CHK-14, TRAIN-94, TRAIN-95, TRAIN-96, TRAP-19",
    group="training",
    title="Training reads a Pipe channel epoch by epoch, each from a FIFO of its own",
    cure="open <channel>_<epoch> once, read it to its end and close it, then wait for the next;"
    " stop after the last epoch without opening another",
    needs=("train-exits-zero",),
)
def pipe_epochs(trial: Trial) -> Verdict:
    from byoa.local.check.pipes import piped_run

    if not trial.samples.pipe:
        return skipped("no channel is read in Pipe mode; --pipe CHANNEL names one that is")
    unknown = [name for name in trial.samples.pipe if name not in trial.samples.channels]
    if unknown:
        raise NotApplicable(f"no channel is called {unknown[0]!r}")
    run, epochs = piped_run(trial)
    seen = ", ".join(f"{name}: {count} epochs" for name, count in epochs.items())
    unread = [name for name, count in epochs.items() if count == 0]
    if run.exit is None:
        return failed(
            f"with Pipe channels it hangs ({seen}): it opened a FIFO twice, waits for one channel"
            " while it holds another, or waits for an end of the epochs, which there is none of",
            evidence=run.tail(),
        )
    if not run.succeeded:
        return failed(f"with Pipe channels it fails: {why(run, trial.facts).cause}",
                      evidence=run.tail())
    if unread:
        return failed(f"it never opened /opt/ml/input/data/{unread[0]}_0", evidence=run.tail())
    return passed(seen)
