"""A golden /opt/ml in a temporary directory, and the real entrypoint run on it."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
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
from tests.loopback import INTERFACE, addresses

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

    def hosts(self, current, names, interface="eth0"):
        group = InstanceGroup("homogeneousCluster", "ml.c5.xlarge", tuple(names))
        resources = ResourceConfig.for_host(current, [group])
        replace(resources, network_interface_name=interface).write(self.layout)

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


class Cluster:
    """The trees of a job's hosts, whose names are addresses of this machine's loopback network."""

    def __init__(self, root, count):
        self.names = addresses(count)
        self.trees = [Tree(root / name / "ml") for name in self.names]
        for name, tree in zip(self.names, self.trees, strict=True):
            tree.hosts(name, self.names, INTERFACE)

    def run(self, *command, **extra):
        """Exit code and output of the entrypoint on every host, all at once."""
        return self.finish(self.start(*command, **extra))

    def start(self, *command, **extra):
        return [tree.start(*command, **extra) for tree in self.trees]

    def finish(self, processes):
        found = [None] * len(processes)

        def take(index, process):
            with process:
                try:
                    output, _ = process.communicate(timeout=LIMIT)
                except subprocess.TimeoutExpired:
                    process.kill()
                    output = f"still running after {LIMIT} s:\n" + process.communicate()[0]
            found[index] = process.returncode, output

        threads = [
            threading.Thread(target=take, args=each) for each in enumerate(processes)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found


@pytest.fixture
def cluster(tmp_path):
    """Makes a job's hosts, so many."""
    return lambda count=2: Cluster(tmp_path / "hosts", count)
