"""Memory of a pass does not grow with the channel: child processes under a limit of their own."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from byoa.container.formats import npy, recordio_protobuf
from byoa.container.formats.recordio import HEADER_BYTES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA is Linux's")

# The limit is on what is allocated, beyond what the imports have; read ahead is a part of it.
CHILD = """
import resource, sys
from pathlib import Path
import numpy as np
from byoa.container import channels
from byoa.container.contract import ChannelConfig, InputDataConfig, Layout
from byoa.container.formats import registry

root, mode, content_type, how, limit = sys.argv[1:]
config = InputDataConfig({"train": ChannelConfig(content_type=content_type, input_mode=mode)})
train = channels.open_channels(Layout(Path(root)), config)["train"]
channels.PREFETCH_BYTES = 4 << 20
lines = Path("/proc/self/status").read_text().splitlines()
data = next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (data + int(limit),) * 2)
batches = [train.load()] if how == "load" else train.batches(100, shuffle=1000)
print(sum(len(batch.features) for batch in batches))
"""
LIMIT = 48 << 20
RECORDS = 2_000
COPIES = 250  # of them, in all half a million records of 16 columns


TYPES = ["text/csv", "application/x-recordio-protobuf", "application/x-npy"]


def contents(content_type):
    table = np.float32(np.arange(RECORDS * 16).reshape(RECORDS, 16) % 1000)
    if content_type == "application/x-npy":
        return npy.FORMAT.encode(table)
    if content_type == "text/csv":
        return "".join(",".join(map(str, row)) + "\n" for row in table.astype(int)).encode()
    frames = np.frombuffer(recordio_protobuf.FORMAT.encode(table), np.uint8)
    frames = frames.reshape(RECORDS, -1).copy()
    frames[:, HEADER_BYTES] = 0x0A  # an answer's map of labels, renamed to one of features
    return frames.tobytes()


def child(root, mode, content_type, how):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(root), mode, content_type, how, str(LIMIT)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )


def result(process):
    try:
        output, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    return process.returncode, output.strip(), errors


@pytest.mark.parametrize("content_type", TYPES)
def test_a_channel_larger_than_memory_comes_in_batches_and_not_whole(channels, content_type):
    directory = channels.layout.channel("train")
    directory.mkdir()
    data = contents(content_type) * COPIES
    if content_type == "application/x-npy":  # one array
        data = npy.FORMAT.encode(np.zeros((RECORDS * COPIES, 16), np.float32))
    (directory / "a").write_bytes(data)
    whole = child(channels.layout.root, "File", content_type, "load")
    code, _, errors = result(whole)
    assert code != 0 and "MemoryError" in errors  # the limit is one
    code, output, errors = result(child(channels.layout.root, "File", content_type, "batches"))
    assert (code, output) == (0, str(RECORDS * COPIES)), errors


@pytest.mark.parametrize("content_type", TYPES)
def test_a_pipe_longer_than_memory_comes_in_batches(channels, platform, content_type):
    # TRAIN-94
    with platform([contents(content_type) * COPIES], chunk=1 << 20):
        code, output, errors = result(child(channels.layout.root, "Pipe", content_type, "batches"))
    assert (code, output) == (0, str(RECORDS * COPIES)), errors
