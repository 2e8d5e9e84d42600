"""What a job measures, kept: over restarts, apart by host, with what its hosts use."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from byoa.local.control.metric_series import (
    METRIC,
    PRINTED,
    SYSTEM,
    Point,
    SeriesWriter,
    read,
    series_path,
)

pytestmark = pytest.mark.both_runners

LOSS = {"MetricDefinitions": [{"Name": "loss", "Regex": r"\bloss=([0-9.]+)"}]}


def series(laboratory: Any, job: str, kind: str = METRIC) -> list[Point]:
    points, _ = read(series_path(laboratory.home, laboratory.caller, job))
    return [each for each in points if each.kind == kind]


def in_cloudwatch(laboratory: Any, name: str, **dimensions: str) -> list[tuple[float, float]]:
    """Time and value of each datum."""
    backend = laboratory.metrics._moto.backend("cloudwatch", laboratory.caller.region)
    return [
        (datum.timestamp.timestamp(), datum.value)
        for datum in backend.metric_data
        if datum.namespace == "/aws/sagemaker/TrainingJobs" and datum.name == name
        and {each.name: each.value for each in datum.dimensions} == dimensions
    ]


def forget(laboratory: Any) -> None:
    """The services of the next server are empty: they keep everything in memory."""
    laboratory.logs.delete_group(laboratory.caller, "/aws/sagemaker/TrainingJobs")
    laboratory.metrics._moto.backend("cloudwatch", laboratory.caller.region).metric_data.clear()


def test_every_value_is_kept_with_its_step_beside_the_job_s_logs(
    laboratory: Any, job: Any
) -> None:
    """TRAIN-190, TRAIN-194."""
    job(
        "kept",
        "for i in range(3): print(f'epoch {i} loss={i}.5')\nprint('auc=0.75; step=9')",
        specification=LOSS,
    )

    assert [(each.name, each.value, each.step, each.host) for each in series(laboratory, "kept")] \
        == [("loss", i + 0.5, i, "algo-1") for i in range(3)]
    (printed,) = series(laboratory, "kept", PRINTED)
    assert (printed.name, printed.value, printed.step) == ("auc", 0.75, 9)
    assert in_cloudwatch(laboratory, "auc", TrainingJobName="kept") == []  # the service: neither

    laboratory.call("DeleteTrainingJob", TrainingJobName="kept")
    assert not series_path(laboratory.home, laboratory.caller, "kept").exists()


def test_metrics_of_an_ended_job_are_in_the_next_server_s_cloudwatch(
    laboratory: Any, job: Any
) -> None:
    """TRAIN-192: what clients such as TrainingJobAnalytics ask for."""
    job("before", "print('loss=1'); print('loss=2')", specification=LOSS)
    known = in_cloudwatch(laboratory, "loss", TrainingJobName="before")
    assert [value for _, value in known] == [1.0, 2.0]
    laboratory.close()
    forget(laboratory)
    laboratory.open()
    end = time.monotonic() + 20
    while len(in_cloudwatch(laboratory, "loss", Host="before/algo-1")) < 2:
        assert time.monotonic() < end
        time.sleep(0.02)

    assert in_cloudwatch(laboratory, "loss", TrainingJobName="before") == known


def test_an_adopted_job_s_values_keep_their_times_and_are_kept_once(
    laboratory: Any, training_request: Any
) -> None:
    """TRAIN-190: the next server reads the log from its beginning."""
    specification = laboratory.program(
        "print('loss=1', flush=True); print('loss=1', flush=True)\n"
        "while not (ml / 'input/go').exists(): time.sleep(0.02)\n"
        "print('loss=3')"
    ) | LOSS
    laboratory.call(
        "CreateTrainingJob", **training_request("adopted", AlgorithmSpecification=specification)
    )
    laboratory.until_printed("adopted", "loss=1")
    end = time.monotonic() + 20
    while len(before := series(laboratory, "adopted")) < 2:
        assert time.monotonic() < end
        time.sleep(0.02)
    laboratory.close(keep_running=True)
    forget(laboratory)
    laboratory.open()
    laboratory.until_printed("adopted", "loss=1")
    (laboratory.ml("adopted") / "input" / "go").touch()
    laboratory.wait("adopted")

    after = series(laboratory, "adopted")
    assert after[:2] == before
    assert [each.value for each in after] == [1.0, 1.0, 3.0]
    assert [value for _, value in in_cloudwatch(laboratory, "loss", TrainingJobName="adopted")] \
        == [1.0, 1.0, 3.0]
    assert in_cloudwatch(laboratory, "loss", TrainingJobName="adopted")[0][0] == pytest.approx(
        before[0].time, abs=0.001
    )


def test_what_a_host_uses_is_measured_while_it_runs(
    laboratory: Any, training_request: Any
) -> None:
    """TRAIN-193: 100 is one CPU, all of the memory, all of the disk."""
    # Two processes: what descends from the first one counts too.
    specification = laboratory.program(
        """
        import subprocess
        held = bytearray(os.urandom(1 << 20) * 200)
        busy = "import time\\nend = time.monotonic() + 60\\nwhile time.monotonic() < end: pass"
        child = subprocess.Popen([sys.executable, '-c', busy])
        while not (ml / 'input/go').exists(): time.sleep(0.02)
        child.kill(); child.wait()
        """
    )
    laboratory.call(
        "CreateTrainingJob", **training_request("busy", AlgorithmSpecification=specification)
    )
    end = time.monotonic() + 60
    while sum(each.name == "CPUUtilization" for each in series(laboratory, "busy", SYSTEM)) < 4:
        assert time.monotonic() < end, laboratory.describe("busy")
        time.sleep(0.1)
    (laboratory.ml("busy") / "input" / "go").touch()
    laboratory.wait("busy")

    points = series(laboratory, "busy", SYSTEM)
    assert {each.host for each in points} == {"algo-1"}
    cpu = [each.value for each in points if each.name == "CPUUtilization"]
    memory = [each.value for each in points if each.name == "MemoryUtilization"]
    disk = [each.value for each in points if each.name == "DiskUtilization"]
    assert max(cpu) > 5  # of a machine that others keep busy
    assert 0 < max(memory) <= 100 and 0 < max(disk) <= 100
    assert len(in_cloudwatch(laboratory, "CPUUtilization", Host="busy/algo-1")) == len(cpu)
    assert in_cloudwatch(laboratory, "CPUUtilization", TrainingJobName="busy") == []
    row = laboratory.state.get("training-job", laboratory.caller, "busy")
    assert 200e6 < row.document["peak_memory"]["algo-1"] < 2e9


@pytest.mark.process_only("a file")
def test_half_a_line_of_a_server_that_was_killed_is_no_value_and_does_not_spoil_the_next(
    tmp_path: Path,
) -> None:
    path = tmp_path / "metrics.jsonl"
    first, second = (Point("loss", value, 1.0, "algo-1", 3) for value in (1.0, 2.0))
    SeriesWriter(path).keep([first])
    with path.open("a") as file:
        file.write('{"name":"lo')
    assert read(path)[0] == [first]
    SeriesWriter(path).keep([first, second])

    assert read(path)[0] == [first, second]
    assert read(path, read(path)[1]) == ([], path.stat().st_size)


@pytest.mark.process_only("a file")
def test_values_that_cannot_be_kept_are_handed_on_all_the_same(tmp_path: Path) -> None:
    writer = SeriesWriter(tmp_path / "logs" / "metrics.jsonl")
    (tmp_path / "logs").touch()
    point = Point("loss", 1.0, 1.0, "algo-1")

    assert writer.keep([point]) == [point]


@pytest.mark.process_only("the machine's GPUs, not the runner's")
def test_the_machine_s_gpus_are_measured_where_there_are_some(
    tmp_path: Path, laboratory: Any, training_request: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRAIN-193: 100 for each GPU. The driver's tool stands in for the driver."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(
        "#!/bin/sh\n"
        '[ "$1" = --query-gpu=utilization.gpu,memory.used,memory.total ] || exit 9\n'
        "echo '90, 1000, 4000'\necho '15, 2000, 4000'\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=os.pathsep)
    specification = laboratory.program(
        "while not (ml / 'input/go').exists(): time.sleep(0.02)"
    )
    laboratory.call(
        "CreateTrainingJob", **training_request("gpus", AlgorithmSpecification=specification)
    )
    end = time.monotonic() + 60
    while "GPUUtilization" not in {each.name for each in series(laboratory, "gpus", SYSTEM)}:
        assert time.monotonic() < end, laboratory.describe("gpus")
        time.sleep(0.1)
    (laboratory.ml("gpus") / "input" / "go").touch()
    laboratory.wait("gpus")

    assert in_cloudwatch(laboratory, "GPUUtilization", Host="gpus/algo-1")[0][1] == 105.0
    assert in_cloudwatch(laboratory, "GPUMemoryUtilization", Host="gpus/algo-1")[0][1] == 75.0
