"""A golden /opt/ml in a temporary directory, and the real entrypoint run on it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from byoa.container.contract import (
    ChannelConfig,
    CheckpointConfig,
    InputDataConfig,
    InstanceGroup,
    Layout,
    MetricDefinition,
    ResourceConfig,
    write_hyperparameters,
)

FIXTURES = Path(__file__).parent / "fixtures"
LIMIT = 60.0


class Tree:
    """An /opt/ml as the platform makes it before the start."""

    def __init__(self, root):
        self.layout = Layout(root)
        self.layout.create()
        self.hyperparameters({})
        self.channels(train="1,2,3\n4,5,6\n")
        self.hosts("algo-1", ["algo-1"])
        MetricDefinition.write_all(self.layout, [])

    def hyperparameters(self, values):
        write_hyperparameters(self.layout, values)

    def channels(self, **contents):
        for name, content in contents.items():
            directory = self.layout.channel(name)
            directory.mkdir(exist_ok=True)
            (directory / "part-0.csv").write_text(content)
        InputDataConfig(
            {name: ChannelConfig(content_type="text/csv") for name in contents}
        ).write(self.layout)

    def hosts(self, current, names):
        group = InstanceGroup("homogeneousCluster", "ml.c5.xlarge", tuple(names))
        ResourceConfig.for_host(current, [group]).write(self.layout)

    def checkpoint_config(self):
        CheckpointConfig("s3://bkt/ckpt/").write(self.layout)

    @property
    def failure(self):
        return self.layout.failure.read_text() if self.layout.failure.exists() else None

    @property
    def model(self):
        return {
            path.relative_to(self.layout.model).as_posix()
            for path in self.layout.model.rglob("*") if path.is_file()
        }

    @property
    def manifest(self):
        return json.loads((self.layout.model / "byoa.json").read_text())

    def environ(self, **extra):
        """A plain container's variables: nothing of the shell that runs the tests."""
        return {
            "PATH": os.environ["PATH"],
            "SAGEMAKER_BASE_DIR": str(self.layout.root),
            "PYTHONPATH": str(FIXTURES),
            "PYTHONUNBUFFERED": "1",
            **extra,
        }

    def start(self, *command, **extra):
        return subprocess.Popen(
            [sys.executable, "-m", "byoa.container", *(command or ("train",))],
            env=self.environ(**extra), cwd=self.layout.root, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )

    def run(self, *command, **extra):
        """Exit code and output of the entrypoint."""
        with self.start(*command, **extra) as process:
            output, _ = process.communicate(timeout=LIMIT)
        return process.returncode, output


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path / "ml")
