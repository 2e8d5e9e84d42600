"""`byoa check --process`: the whole catalogue against an algorithm, without an engine."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from byoa.container.errors import ByoaError
from byoa.local.check import catalogue
from byoa.local.check.checks import Check, NotApplicable, Verdict, failed
from byoa.local.check.trial import Samples, Trial
from byoa.local.cli import main

ALGORITHM = '''
import json
from byoa.algorithms import Algorithm, Hyperparameters, param

class Mean(Algorithm):
    class Hyperparameters(Hyperparameters):
        rate: float = param(0.5, doc="of nothing")

    def train(self, run):
        features, labels = run.channel("train").load()
        {train}
        (run.model_dir / "mean.json").write_text(json.dumps(float(labels.mean())))

    def load(self, model_dir, device):
        return json.loads((model_dir / "mean.json").read_text())

    def predict(self, model, records):
        return [model] * len(records)
'''


@pytest.fixture
def samples(tmp_path: Path) -> dict[str, Path]:
    rows = "".join(f"{number % 3},{number},{number * 2}\n" for number in range(30))
    files = {
        "train": tmp_path / "data" / "train.csv",
        "request": tmp_path / "request.csv",
        "hyperparameters": tmp_path / "hyperparameters.json",
    }
    files["train"].parent.mkdir()
    files["train"].write_text(rows)
    files["request"].write_text("1,2\n3,4\n")
    files["hyperparameters"].write_text('{"metric": "l2"}')
    return files


def _check(*argv: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "byoa.local.cli", "check", *map(str, argv)],
        cwd=cwd, text=True, capture_output=True, timeout=200,
    )


def test_a_built_in_algorithm_passes_every_check_that_applies(
    samples: dict[str, Path], tmp_path: Path
) -> None:
    """CHK-01, CHK-05, CHK-06, CHK-08 of one's own algorithm; the user's files stay as they are."""
    output = tmp_path / "report.json"
    before = samples["train"].read_bytes(), sorted(samples["train"].parent.iterdir())
    done = _check(
        "--process", "nearest-centroid", "--channel", f"train={samples['train']}",
        "--channel-type", "train=text/csv", "--request", samples["request"],
        "--content-type", "text/csv", "--hyperparameters", samples["hyperparameters"],
        "--format", "json", "--output", output, cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(output.read_text())
    assert report["subject"] == {"kind": "algorithm", "name": "nearest-centroid", "about": ""}
    outcomes = {each["id"]: each["outcome"] for each in report["checks"]}
    assert report["summary"]["fail"] == 0
    for id in ("train-exits-zero", "model-left", "ping-answers-200", "sample-request-is-answered",
               "sigterm-ends-it", "hyperparameters-quoted"):
        assert outcomes[id] == "pass", id
    assert "22 checks skipped: a process has no image" in done.stdout
    assert before == (samples["train"].read_bytes(), sorted(samples["train"].parent.iterdir()))


def test_a_fault_of_an_algorithm_in_a_folder_is_named_and_the_exit_code_is_one(
    samples: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "mean.py").write_text(ALGORITHM.format(train="raise ValueError('no such mean')"))
    done = _check("--process", folder, "--channel", f"train={samples['train']}",
                  "--only", "train-exits-zero", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "FAIL train-exits-zero" in done.stdout
    assert "no such mean" in done.stdout
    assert "1 error" in done.stdout


def test_a_module_of_the_current_folder_is_found(samples: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "mean.py").write_text(ALGORITHM.format(train="pass"))
    done = _check("--process", "mean:Mean", "--channel", f"train={samples['train']}",
                  "--only", "model-left", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "name either an image or --process"),
        (["mine:1", "--process", "nearest-centroid"], "name either an image or --process"),
        (["mine:1", "--only", "trainning"], "no check and no group is called 'trainning'"),
        (["mine:1", "--channel", "train"], "has no '='"),
        (["mine:1", "--channel", "train=nowhere"], "nowhere does not exist"),
        (["mine:1", "--pipe", "train"], "--channel train=PATH"),
        (["mine:1", "--accept", "text/csv"], "--accept goes with --request"),
        (["mine:1", "--request", "request.csv"], "--content-type"),
        (["mine:1", "--hyperparameters", "request.csv"], "is not JSON"),
        (["mine:1", "--stop-seconds", "0"], "no number of seconds"),
        (["mine:1", "--format", "markdown"], "goes with --list"),
        (["--process", "x", "--format", "json", "--failures"], "--failures is of the table"),
        (["--list", "--only", "nonsense"], "no check and no group is called 'nonsense'"),
        (["--list", "--format", "sarif"], "--list has no format sarif"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value) or "nothing",
)
def test_a_mistyped_command_line_is_refused_with_exit_code_two(
    argv: list[str], words: str, samples: dict[str, Path]
) -> None:
    done = _check(*argv, cwd=samples["request"].parent)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert done.stdout == ""


def test_the_catalogue_is_listed_as_text_json_and_markdown(tmp_path: Path) -> None:
    text = _check("--list", cwd=tmp_path)
    assert text.returncode == 0
    assert "  runs-as-root " in text.stdout
    document = json.loads(_check("--list", "--format", "json", cwd=tmp_path).stdout)
    assert f"{len(document['catalogue'])} checks" in text.stdout
    markdown = _check("--list", "--format", "markdown", "--only", "image", cwd=tmp_path).stdout
    rows = [line for line in markdown.splitlines() if line.startswith("| `")]
    assert len(rows) == sum(each["group"] == "image" for each in document["catalogue"])


def test_an_algorithm_that_is_not_known_cannot_be_checked(tmp_path: Path) -> None:
    done = _check("--process", "no-such-algorithm", cwd=tmp_path)
    assert done.returncode == 3 and not done.stdout
    assert "[ALGORITHM_UNKNOWN]" in done.stderr and "nearest-centroid" in done.stderr


def test_what_only_a_container_has_is_not_applicable_to_a_process(tmp_path: Path) -> None:
    with Trial.of_algorithm("nearest-centroid", Samples()) as trial:
        ml = trial.new_ml()
        for options in ({"user": "1000"}, {"read_only_model": True}, {"entrypoint": ("sh",)},
                        {"read_only": True}, {"memory_bytes": 1 << 30}, {"network": "mine"},
                        {"mounts": {"/x": tmp_path}}, {"read_only_data": True}):
            with pytest.raises(NotApplicable):
                trial.box(("train",), ml=ml, **options)
        with pytest.raises(NotApplicable):
            trial.network()


def test_a_trial_leaves_nothing_behind_even_when_a_box_still_runs(tmp_path: Path) -> None:
    with Trial.of_algorithm("nearest-centroid", Samples()) as trial:
        folder = trial.new_folder().parent
        box = trial.serve(trial.hosting_ml())
        assert box.running
        pids = [each.pid for each in box.processes()]
    assert not folder.exists()
    assert folder.parent == Path(tempfile.gettempdir())
    for pid in pids:
        assert not Path(f"/proc/{pid}/cwd").exists()


def test_boxes_may_be_started_from_threads_inside_what_is_made_once(tmp_path: Path) -> None:
    """Two hosts of a job start together; nothing of the trial may hold them up."""
    with Trial.of_algorithm("nearest-centroid", Samples()) as trial:
        def make() -> list[int]:
            codes: list[int] = []

            def run() -> None:
                ended = trial.train(trial.new_ml()).wait(30)
                codes.append(-1 if ended is None else ended.code)

            threads = [threading.Thread(target=run) for _ in range(2)]
            for each in threads:
                each.start()
            for each in threads:
                each.join(60)
            return codes

        assert trial.memo("hosts", make) == [1, 1]  # without a channel there is nothing to learn


def test_a_folder_without_an_algorithm_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ByoaError, match="ALGORITHM_MISSING"):
        Trial.of_algorithm(str(tmp_path), Samples())


def test_a_warning_alone_is_no_failure_of_the_command_unless_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warns(trial: Trial) -> Verdict:
        return failed("it is not set")

    one = Check("unbuffered", "TRAIN-196", "training", "It is set", "set it", (), warns, "warning")
    monkeypatch.setattr(catalogue, "all_checks", lambda: [one])
    argv = ["check", "--process", "nearest-centroid"]
    assert main(argv) == 0
    assert "  warn unbuffered" in capsys.readouterr().out
    assert main([*argv, "--strict"]) == 1
    assert "  FAIL unbuffered" in capsys.readouterr().out


@pytest.mark.parametrize("options", [
    ("--process", "."),  # a folder without an algorithm
    ("--process", "nearest-centroid", "--output", "nowhere/report.json"),
    ("--process", "nearest-centroid", "--output", "."),
])
def test_what_cannot_be_checked_has_an_exit_code_of_its_own(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    """And that a report cannot be written is told before minutes of checks."""
    done = _check(*options, cwd=tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    assert done.stderr.startswith("byoa: ")
    assert done.stdout == ""


def test_the_expressions_of_a_job_s_metrics_are_tried_on_the_log(
    tmp_path: Path, samples: dict[str, Path]
) -> None:
    """TRAIN-190, TRAP-27, pain 19."""
    def ran(*metrics: str) -> subprocess.CompletedProcess[str]:
        options = [part for each in metrics for part in ("--metric", each)]
        return _check(
            "--process", "nearest-centroid", "--channel", f"train={samples['train']}",
            "--only", "metrics-found", *options, cwd=tmp_path,
        )

    good = ran("train:accuracy=train:accuracy=([0-9.]+)")
    bad = ran("accuracy=accuracy: ([0-9.]+)")
    wrong = ran("accuracy=accuracy=[0-9.]+")

    assert good.returncode == 0 and "accuracy: " not in good.stdout
    assert "warn metrics-found" in bad.stdout
    said = " ".join(bad.stdout.split())  # the table breaks lines
    assert "0 matches in" in said and "nearest line: 'train:accuracy=" in said
    assert wrong.returncode == 2 and "has no group in parentheses" in wrong.stderr
