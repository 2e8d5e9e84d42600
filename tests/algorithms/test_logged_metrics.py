"""Each algorithm logs the metrics that it names, and no other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from byoa.algorithms import registry
from byoa.container.contract import Layout, write_hyperparameters
from byoa.container.metrics import METRICS_FILE

# Where the defaults take long, or where one has no default.
HYPERPARAMETERS = {"mlp-classifier": {"epochs": "2"}}


@pytest.mark.parametrize("name", registry.names())
def test_an_algorithm_logs_what_it_names(name: str, tmp_path: Path) -> None:
    """pain 19: `byoa metrics --definitions` prints the expressions of these."""
    layout = Layout(tmp_path / "ml")
    layout.create()
    rows = "".join(f"{i % 2},{i % 2 + i / 100},{i % 7}\n" for i in range(80))
    for channel in ("train", "validation"):
        layout.channel(channel).mkdir()
        (layout.channel(channel) / "data.csv").write_text(rows)
    (layout.config / "inputdataconfig.json").write_text(json.dumps(
        {each: {"TrainingInputMode": "File", "ContentType": "text/csv"}
         for each in ("train", "validation")}
    ))
    (layout.config / "resourceconfig.json").write_text(
        '{"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "lo"}'
    )
    write_hyperparameters(layout, HYPERPARAMETERS.get(name, {}))
    ran = subprocess.run(
        [sys.executable, "-m", "byoa.container", "train"], capture_output=True, text=True,
        env={**os.environ, "SAGEMAKER_BASE_DIR": str(layout.root), "BYOA_ALGORITHM": name},
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr

    lines = (layout.metrics / METRICS_FILE).read_text().splitlines()
    logged = {json.loads(line)["name"] for line in lines}
    assert logged == set(registry.find(name).metrics)
