"""A golden /opt/ml in a temporary directory, the real entrypoint run on it, and channels in it."""

import contextlib
import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from byoa.container.channels import open_channels
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


class Channels:
    """Makes a channel `train`, of files or of what FIFOs give."""

    def __init__(self, root):
        self.layout = Layout(root)
        self.layout.data.mkdir(parents=True, exist_ok=True)

    def files(self, files, content_type=None, *, job=None, **config):
        """A channel with the given files, and ContentType if there is one."""
        directory = self.layout.channel("train")
        directory.mkdir(exist_ok=True)
        for name, data in files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return self._open(ChannelConfig(content_type=content_type, **config), job or {})

    def pipe(self, content_type=None, *, job=None, **config):
        config = ChannelConfig(content_type=content_type, input_mode="Pipe", **config)
        return self._open(config, job or {})

    def _open(self, config, job):
        return open_channels(self.layout, InputDataConfig({"train": config}), **job)["train"]


@pytest.fixture
def channels(tmp_path):
    return Channels(tmp_path / "ml")


class Platform:
    """Writes a Pipe channel's FIFOs as the service does: each is made when the last is done."""

    def __init__(self, layout, contents, *, pause=0.0, chunk=1 << 16, delay=0.0):
        self.layout = layout
        self.contents = contents
        self.pause = pause  # between two chunks
        self.chunk = chunk
        self.delay = delay  # before a FIFO is made
        self.opened = []
        self.ends = []  # for each FIFO "written", or "closed" where its reader left early
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *failure):
        self.over.set()
        self.thread.join(LIMIT)
        assert not self.thread.is_alive()

    def wait(self, count):
        """Until `count` FIFOs are done with."""
        until = time.monotonic() + LIMIT
        while len(self.ends) < count and time.monotonic() < until:
            time.sleep(0.005)
        return self.ends

    def _run(self):
        for epoch, content in enumerate(self.contents):
            self.over.wait(self.delay)
            path = self.layout.fifo("train", epoch)
            os.mkfifo(path)
            descriptor = self._reader(path)
            if descriptor is None:
                return
            self.opened.append(epoch)
            try:
                for start in range(0, len(content), self.chunk):
                    self._write(descriptor, content[start:start + self.chunk])
                    if self.pause and self.over.wait(self.pause):
                        break
                self.ends.append("written")
            except BrokenPipeError:
                self.ends.append("closed")
            finally:
                os.close(descriptor)

    def _reader(self, path):
        """The FIFO's write end once it has a reader; None when the test is over."""
        while not self.over.is_set():
            with contextlib.suppress(OSError):
                return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            self.over.wait(0.002)

    def _write(self, descriptor, data):
        while data and not self.over.is_set():
            try:
                data = data[os.write(descriptor, data):]
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    raise
                self.over.wait(0.001)


@pytest.fixture
def platform(channels):
    """`with platform([content of FIFO 0, …]):` writes them."""
    return lambda contents, **options: Platform(channels.layout, contents, **options)
