"""Each algorithm logs the metrics that it names, and no other."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from byoa.algorithms import registry
from byoa.container.contract import Layout, write_hyperparameters
from byoa.container.metrics import METRICS_FILE

# Trainings that together log everything: where the defaults take long, where one has no default.
RUNS: dict[str, list[dict[str, str]]] = {
    "mlp-classifier": [{"epochs": "2"}],
    "linear-learner": [
        {"predictor_type": "regressor"}, {"predictor_type": "binary_classifier"},
        {"predictor_type": "multiclass_classifier", "num_classes": "3"},
        {"predictor_type": "multiclass_classifier", "num_classes": "3", "accuracy_top_k": "2"},
    ],
}
CHANNELS = (("train", "validation", "test"), ("train",))


@pytest.mark.parametrize("name", registry.names())
def test_an_algorithm_logs_what_it_names(name: str, tmp_path: Path) -> None:
    """pain 19: `byoa metrics --definitions` prints the expressions of these."""
    logged: set[str] = set()
    runs = itertools.product(RUNS.get(name, [{}]), CHANNELS)
    for number, (hyperparameters, channels) in enumerate(runs):
        layout = Layout(tmp_path / str(number) / "ml")
        logged |= _logged(name, layout, hyperparameters, channels)
    assert logged == set(registry.find(name).metrics)


def _logged(
    name: str, layout: Layout, hyperparameters: dict[str, str], channels: tuple[str, ...]
) -> set[str]:
    layout.create()
    rows = "".join(f"{i % 2},{i % 2 + i / 100},{i % 7}\n" for i in range(80))
    for channel in channels:
        layout.channel(channel).mkdir()
        (layout.channel(channel) / "data.csv").write_text(rows)
    (layout.config / "inputdataconfig.json").write_text(json.dumps(
        {each: {"TrainingInputMode": "File", "ContentType": "text/csv"}
         for each in channels}
    ))
    (layout.config / "resourceconfig.json").write_text(
        '{"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "lo"}'
    )
    write_hyperparameters(layout, hyperparameters)
    ran = subprocess.run(
        [sys.executable, "-m", "byoa.container", "train"], capture_output=True, text=True,
        env={**os.environ, "SAGEMAKER_BASE_DIR": str(layout.root), "BYOA_ALGORITHM": name},
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr

    lines = (layout.metrics / METRICS_FILE).read_text().splitlines()
    return {json.loads(line)["name"] for line in lines}
