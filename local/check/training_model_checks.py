"""Checks of what training leaves: the model's files, and results where nobody collects them."""

from __future__ import annotations

import re
import stat
from pathlib import Path, PurePosixPath

from byoa.container.contract import CHECKPOINT_FILE, ROOT, CheckpointConfig, Layout
from byoa.local.check import training_runs as runs
from byoa.local.check.checks import NotApplicable, Verdict, check, failed, passed, skipped
from byoa.local.check.training_causes import verdict, why
from byoa.local.check.training_variants import run as variant
from byoa.local.check.tree import CHECKPOINT_URI, copy_file
from byoa.local.check.trial import Trial

_NAMED = 5  # files that a message names
_FOREIGN = (".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX")
_WRAPPERS = ("model", "opt")
# Below /opt/ml: what the service puts there, uploads or reads (TRAIN-30).
_COLLECTED = (
    "input", "code", "model", "checkpoints", "errors", "shared", "output/data", "output/failure",
    "output/success", "output/metrics", "output/intermediate", "output/profiler",
    "output/tensors", "output/tensorboard",
)
# Scratch that nobody misses: temporary files, caches, logs, installed packages, byte code.
_SCRATCH = re.compile(
    r"^/(tmp|var|run|dev|proc|sys|etc)(/|$)|/\.|cache|/(site|dist)-packages/|/opt/ml($|/)"
    r"|\.(pyc|pyo|log|pid|lock|sock)$|^/opt$|core(\.\d+)?$",
    re.IGNORECASE,
)
_CHECKPOINT = re.compile(r"check-?_?point|ckpt", re.IGNORECASE)


def _model(trial: Trial) -> Layout:
    return runs.plain(trial).layout


def _listed(paths: list[Path]) -> str:
    names = ", ".join(f"{path}" for path in paths[:_NAMED])
    rest = len(paths) - _NAMED
    return f"{names} and {rest} more" if rest > 0 else names


def _lost(run: runs.TrainingRun) -> list[str]:
    """Inner paths of results that lie where the service collects nothing."""
    below = [
        f"{ROOT / path}" for path in map(str, runs.left_in(run.layout.root))
        if not any(path == each or path.startswith(f"{each}/") for each in _COLLECTED)
    ]
    changed = run.outside or ()
    directories = {f"{parent}" for path in changed for parent in PurePosixPath(path).parents}
    beside = [path for path in changed if path not in directories and not _SCRATCH.search(path)]
    return below + beside


@check(
    "model-left",
    clause="CHK-01, TRAIN-130, TRAIN-133",
    group="training",
    title="Training leaves a model in /opt/ml/model",
    cure="save to /opt/ml/model (SM_MODEL_DIR where the training toolkit runs the script), before"
    " the first process ends",
    needs=("train-exits-zero",),
)
def model_left(trial: Trial) -> Verdict:
    run = runs.plain(trial)
    files = run.model_files()
    if files:
        return passed(_listed(files))
    lost = _lost(run)
    if lost:
        return failed(
            f"/opt/ml/model is empty, and the run wrote {_listed(list(map(Path, lost)))}, which is"
            " gone with the container",
            evidence=run.tail(),
        )
    if run.seconds < 1.0 and not run.log.strip():
        return failed(
            "/opt/ml/model is empty; the first process ended at once without a word: work that it"
            " left in the background ends with it",
        )
    return failed("/opt/ml/model is empty: model.tar.gz would hold nothing", evidence=run.tail())


@check(
    "results-collected",
    clause="TRAIN-131, TRAIN-181, TRAP-43",
    group="training",
    title="Nothing that training writes is lost with the container",
    cure="write results to /opt/ml/model or /opt/ml/output/data, checkpoints to /opt/ml/checkpoints"
    " and scratch to /tmp",
    needs=("model-left",),
)
def results_collected(trial: Trial) -> Verdict:
    lost = _lost(runs.plain(trial))
    if lost:
        return failed(
            f"the run wrote {_listed(list(map(Path, lost)))}: the service collects /opt/ml/model,"
            " /opt/ml/output/data and the checkpoints, and this is none of them"
        )
    return passed()


@check(
    "model-plain-files",
    clause="TRAIN-136, HOST-42, TRAP-21",
    group="training",
    title="The model consists of plain files: no links, sockets, FIFOs or devices",
    cure="copy what a link points to (shutil.copy, cp -L) instead of linking it",
    needs=("model-left",),
)
def model_plain_files(trial: Trial) -> Verdict:
    layout = _model(trial)
    for name in runs.left_in(layout.model):
        path = layout.model / name
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            return failed(_link(layout, name))
        if not stat.S_ISREG(mode):
            kind = "socket" if stat.S_ISSOCK(mode) else "FIFO" if stat.S_ISFIFO(mode) else "device"
            return failed(f"/opt/ml/model/{name} is a {kind}")
    return passed()


def _link(layout: Layout, name: Path) -> str:
    path = layout.model / name
    target = path.readlink()
    inner = target if target.is_absolute() else Path(ROOT / "model" / name.parent / target)
    what = f"/opt/ml/model/{name} is a symbolic link to {target}"
    if not str(inner).startswith(f"{ROOT}/model/"):
        return f"{what}, outside the model: the archive holds the link and not the file"
    return f"{what}: an endpoint's archive may hold no links"


@check(
    "model-at-root",
    clause="HOST-42, TRAP-21",
    group="training",
    level="warning",
    title="The model's files are at the root of /opt/ml/model, neither wrapped nor archived",
    cure="save straight into /opt/ml/model: the service makes model.tar.gz of what is in it",
    needs=("model-left",),
)
def model_at_root(trial: Trial) -> Verdict:
    layout = _model(trial)
    top = sorted(path.name for path in layout.model.iterdir())
    if len(top) == 1 and top[0] in _WRAPPERS and (layout.model / top[0]).is_dir():
        return failed(
            f"everything is in /opt/ml/model/{top[0]}/, so that a server finds nothing where it"
            " looks", evidence=_listed(runs.left_in(layout.model)),
        )
    archives = [name for name in top if name == "model.tar.gz"]
    if archives:
        return failed(
            "/opt/ml/model/model.tar.gz is an archive inside the archive that the service makes:"
            " nobody extracts it at an endpoint", evidence=_listed(runs.left_in(layout.model)),
        )
    return passed()


@check(
    "model-readable",
    clause="HOST-42, TRAP-41",
    group="training",
    title="The model's files can be read by a server that runs as another user",
    cure="chmod 0644 what tempfile made (os.chmod after os.replace), directories 0755; set umask"
    " 022",
    needs=("model-plain-files",),
)
def model_readable(trial: Trial) -> Verdict:
    layout = _model(trial)
    for path in sorted(layout.model.rglob("*")):
        mode = stat.S_IMODE(path.lstat().st_mode)
        wanted = 0o055 if path.is_dir() else 0o044
        if mode & wanted != wanted:
            return failed(
                f"/opt/ml/model/{path.relative_to(layout.model)} has mode {mode:04o}: the archive"
                " keeps it, and a server without root's rights (a serverless endpoint, dropped"
                " privileges) cannot read it"
            )
    return passed()


@check(
    "model-clean",
    clause="TRAP-21",
    group="training",
    level="warning",
    title="The model holds no files of a desktop system",
    cure="leave ._*, .DS_Store and Thumbs.db out of what is copied: COPYFILE_DISABLE=1 for tar,"
    " .dockerignore for the image",
    needs=("model-left",),
)
def model_clean(trial: Trial) -> Verdict:
    files = _model(trial)
    found = [
        path for path in runs.left_in(files.model)
        if path.name.startswith("._") or any(part in _FOREIGN for part in path.parts)
    ]
    if found:
        return failed(
            f"/opt/ml/model holds {_listed(found)}, which loaders that read every file stumble over"
        )
    return passed()


# --- checkpoints ----------------------------------------------------------------------------------


@check(
    "checkpoints-synced",
    clause="TRAIN-171, TRAP-50",
    group="training",
    title="Checkpoints are written where checkpointconfig.json says",
    cure="write them below LocalPath of checkpointconfig.json, /opt/ml/checkpoints by default: it"
    " alone is copied to S3 while the job runs",
    needs=("model-left",),
)
def checkpoints_synced(trial: Trial) -> Verdict:
    run = variant(trial, "checkpoints")
    if not run.succeeded:
        return failed(f"with {CHECKPOINT_FILE} it fails: {why(run, trial.facts).cause}",
                      evidence=run.tail())
    written = runs.left_in(run.layout.checkpoints)
    if written:
        return passed(f"/opt/ml/checkpoints: {_listed(written)}")
    elsewhere = [f"{ROOT / path}" for path in runs.left_in(run.layout.root)
                 if path.parts[0] != "input" and _CHECKPOINT.search(str(path))]
    elsewhere += [path for path in run.outside or () if _CHECKPOINT.search(path.rpartition("/")[2])]
    if elsewhere:
        return failed(
            f"/opt/ml/checkpoints is empty, and the run wrote {', '.join(elsewhere[:_NAMED])}: an"
            " interrupted spot job begins anew"
        )
    return skipped("it writes no checkpoints")


@check(
    "checkpoints-resumed",
    clause="TRAIN-173, TRAIN-174",
    group="training",
    title="Training resumes from its checkpoints beside the service's .sagemaker-uploaded markers",
    cure="leave out names that end in .sagemaker-uploading, .sagemaker-uploaded or"
    " .sagemaker-ignore when looking for the last checkpoint",
    needs=("checkpoints-synced",),
)
def checkpoints_resumed(trial: Trial) -> Verdict:
    first = variant(trial, "checkpoints")
    written = runs.left_in(first.layout.checkpoints)
    if not written:
        raise NotApplicable("it writes no checkpoints")

    def carry_over(layout: Layout) -> None:
        runs.without_manifests(layout)
        CheckpointConfig(CHECKPOINT_URI).write(layout)
        for name in written:
            target = layout.checkpoints / name
            target.parent.mkdir(parents=True, exist_ok=True)
            copy_file(first.layout.checkpoints / name, target)
            target.with_name(f"{target.name}.sagemaker-uploaded").write_bytes(b"")

    run = runs.run(trial, "resumed", carry_over)
    if run.succeeded and run.model_files():
        return passed()
    if run.succeeded:
        return failed("resumed from its own checkpoints it leaves no model", evidence=run.tail())
    return verdict(run, why(run, trial.facts))


@check(
    "train-again",
    clause="TRAIN-210",
    group="training",
    level="warning",
    title="Training on a tree that an earlier attempt left behind succeeds as the first one did",
    cure="replace what is there (exist_ok=True, os.replace): a retried job may find its own files",
    needs=("model-left",),
)
def train_again(trial: Trial) -> Verdict:
    first = runs.plain(trial)
    run = variant(trial, "train-again")
    if not run.succeeded:
        told = why(run, trial.facts)
        return failed(
            f"it succeeds in an empty /opt/ml/model and fails where its own model is: {told.cause}",
            evidence=run.tail(),
        )
    missing = sorted(set(first.model_files()) - set(run.model_files()))
    if missing:
        return failed(f"the second run removed {_listed(missing)}", evidence=run.tail())
    return passed()
