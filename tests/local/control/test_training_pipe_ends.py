"""Pipe channels that go wrong, jobs that end, servers that go: nothing hangs, nothing is left."""

from __future__ import annotations

import gzip
import os
import time
from typing import Any

import pytest

pytestmark = pytest.mark.both_runners

AUGMENTED = {"S3DataType": "AugmentedManifestFile", "AttributeNames": ["source-ref", "class"]}


# --- what goes wrong ------------------------------------------------------------------------------

WAITING = """
with opened('train', 0) as fifo:
    print('begun', len(fifo.read(1)), flush=True)
    while not (ml / 'input/go').exists(): time.sleep(0.02)
    print('whole', len(fifo.read()), flush=True)
(ml / 'model' / 'weights').write_text('w')
show('train', 1)
"""


def go(laboratory: Any, name: str) -> None:
    (laboratory.ml(name) / "input/go").touch()


def test_an_object_that_goes_while_the_job_reads_fails_it(
    laboratory: Any, submit_reader: Any, put: Any, pipe: Any, until_nothing_feeds: Any
) -> None:
    """The reader is not told that the epoch has ended, for it has not."""
    put({"d/a": b"x" * 5_000_000, "d/b": b"end"})
    submit_reader("gone", WAITING, InputDataConfig=[pipe("train", "s3://tests/d/")])
    laboratory.until_printed("gone", "begun 1")
    laboratory.buckets.delete("tests", "d/b")
    go(laboratory, "gone")
    described = laboratory.wait("gone")

    assert described["TrainingJobStatus"] == "Failed"
    assert described["FailureReason"] == (
        "ClientError: Data download failed:s3://tests/d/b (channel 'train', epoch 0) is not there"
        " any more"
    )
    assert laboratory.lines("gone") == ["begun 1"]
    assert laboratory.onlooker.running() == []
    until_nothing_feeds()


def test_an_object_that_is_replaced_is_read_as_it_was_or_as_it_is(
    laboratory: Any, submit_reader: Any, put: Any, pipe: Any
) -> None:
    put({"d/a": b"x" * 5_000_000})
    submit_reader("replaced", WAITING, InputDataConfig=[pipe("train", "s3://tests/d/")])
    laboratory.until_printed("replaced", "begun 1")
    put({"d/a": b"new"})
    go(laboratory, "replaced")
    assert laboratory.wait("replaced")["TrainingJobStatus"] == "Completed"

    assert laboratory.lines("replaced") == ["begun 1", "whole 4999999", "new"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (gzip.compress(os.urandom(100_000))[:-20], "it ends before its end-of-stream marker"),
        (b"plain text", "incorrect header check"),
        (gzip.compress(b"one")[:-8] + bytes(8), "incorrect data check"),
    ],
    ids=["short", "plain", "damaged"],
)
@pytest.mark.parametrize("wrapper", ["None", "RecordIO"])
def test_a_broken_gzip_file_fails_the_job(
    laboratory: Any, submit_reader: Any, put: Any, pipe: Any, data: bytes, why: str, wrapper: str,
    until_nothing_feeds: Any
) -> None:
    put({"d/a": gzip.compress(b"good"), "d/b.gz": data})
    submit_reader("broken", "read('train', 0)\nprint('read')", InputDataConfig=[
        pipe("train", "s3://tests/d/", CompressionType="Gzip", RecordWrapperType=wrapper),
    ])
    described = laboratory.wait("broken")

    assert described["FailureReason"].startswith(
        "ClientError: Data download failed:s3://tests/d/b.gz (channel 'train', epoch 0) is no whole"
        " gzip file, as CompressionType says: "
    )
    assert why in described["FailureReason"]
    assert laboratory.lines("broken") == []
    until_nothing_feeds()


def test_an_object_that_a_line_names_and_that_is_not_there_fails_the_job(
    laboratory: Any, submit_reader: Any, put: Any, pipe: Any
) -> None:
    """TRAIN-114."""
    put({"lines": b'{"source-ref":"s3://tests/none","class":"0"}'})
    submit_reader("none", "read('a', 0)",
           InputDataConfig=[pipe("a", "s3://tests/lines", source=AUGMENTED)])

    assert "s3://tests/none (channel 'a', epoch 0) is not there" in (
        laboratory.wait("none")["FailureReason"]
    )


@pytest.mark.process_only("it is about the server's side")
def test_a_record_that_no_frame_can_hold_fails_the_job(
    laboratory: Any, submit_reader: Any, put: Any, pipe: Any
) -> None:
    """TRAIN-121: the length has 29 bits."""
    put({"d/a": b""})
    with (laboratory.home / "s3/tests/d/a").open("wb") as file:
        file.truncate(1 << 29)
    submit_reader("long", "read('train', 0)", InputDataConfig=[
        pipe("train", "s3://tests/d/", RecordWrapperType="RecordIO"),
    ])

    assert "has 536870912 bytes, and a RecordIO record fewer than 536870912" in (
        laboratory.wait("long")["FailureReason"]
    )


@pytest.mark.parametrize("what", ["file", "link", "directory"])
def test_nothing_but_a_fifo_is_written_to(
    laboratory: Any, submit_reader: Any, put: Any, pipe: Any, what: str, until_nothing_feeds: Any
) -> None:
    """A container's root may put a link to a file of this machine in a FIFO's place."""
    put({"d/a": b"data"})
    outside = laboratory.home / "outside"
    outside.write_text("untouched")
    submit_reader("vandal", f"""
(data / 'train_0').unlink()
make = dict(file=lambda p: p.touch(), link=lambda p: p.symlink_to({str(outside)!r}),
            directory=lambda p: p.mkdir())[{what!r}]
make(data / 'train_0')
print('done', flush=True)
time.sleep(60)
""", InputDataConfig=[pipe("train", "s3://tests/d/")])
    described = laboratory.wait("vandal")

    assert "put something else in the place of the FIFO train_0" in described["FailureReason"]
    assert outside.read_text() == "untouched"
    until_nothing_feeds()


def test_a_fifo_that_the_container_removed_is_made_again(
    laboratory: Any, submit_reader: Any, put: Any, pipe: Any
) -> None:
    put({"d/a": b"data"})
    submit_reader("removed", "(data / 'train_0').unlink()\nshow('train', 0)",
           InputDataConfig=[pipe("train", "s3://tests/d/")])
    laboratory.wait("removed")

    assert laboratory.lines("removed") == ["data"]


# --- the job's end --------------------------------------------------------------------------------

ENDLESS = {
    "reads nothing": "print('ready', flush=True); time.sleep(60)",
    "reads no more": "f = opened('train', 0); f.read(1); print('ready', flush=True);"
                     " time.sleep(60)",
    "reads on": "print('ready', flush=True)\nfor n in range(10**9): read('train', n)",
}
CRASHING = """
import threading
def crash():
    while not (ml / 'input/crash').exists(): time.sleep(0.02)
    os._exit(139)
threading.Thread(target=crash, daemon=True).start()
"""


@pytest.mark.parametrize("what", ENDLESS)
@pytest.mark.parametrize("how", ["stop", "shutdown", "crash"])
def test_the_feeds_end_with_the_job(
    laboratory: Any, submit_reader: Any, put: Any, pipe: Any, what: str, how: str, feeds: Any,
    until_nothing_feeds: Any
) -> None:
    """TRAIN-150: no thread, no descriptor is left."""
    put({"d/a": b"x" * 3_000_000})
    submit_reader("endless", CRASHING + ENDLESS[what], InputDataConfig=[
        pipe("train", "s3://tests/d/"), pipe("lines", "s3://tests/d/a"),
    ])
    laboratory.until_printed("endless", "ready")
    assert len(feeds()) == 2
    if how == "stop":
        laboratory.call("StopTrainingJob", TrainingJobName="endless")
        assert laboratory.wait("endless")["TrainingJobStatus"] == "Stopped"
    elif how == "shutdown":
        laboratory.close(timeout=5.0)
    else:
        (laboratory.ml("endless") / "input/crash").touch()
        assert laboratory.wait("endless")["TrainingJobStatus"] == "Failed"
    until_nothing_feeds()


def test_a_job_that_fails_by_itself_fails_for_its_own_reason(
    laboratory: Any, submit_reader: Any, put: Any, pipe: Any, until_nothing_feeds: Any
) -> None:
    put({"d/a": b"x" * 3_000_000})
    submit_reader("own", "opened('train', 0).read(1)\nsys.exit(3)",
           InputDataConfig=[pipe("train", "s3://tests/d/")])

    assert laboratory.wait("own")["FailureReason"] == "AlgorithmError: , exit code: 3"
    until_nothing_feeds()


# --- another server -------------------------------------------------------------------------------


def test_a_server_that_comes_between_two_epochs_goes_on(
    laboratory: Any, submit_reader: Any, put: Any, pipe: Any, until_nothing_feeds: Any
) -> None:
    """pain 3: the reader waits for it."""
    put({"d/a": b"one,", "d/b": b"two"})
    submit_reader("between", """
show('train', 0)
while not (ml / 'input/go').exists(): time.sleep(0.02)
for epoch in (1, 2, 3): show('train', epoch)
""", InputDataConfig=[
        pipe("train", "s3://tests/d/", ShuffleConfig={"Seed": 1}),
        pipe("unread", "s3://tests/d/"),
    ])
    laboratory.until("between", lambda job: laboratory.lines("between") != [])
    laboratory.close(keep_running=True)
    until_nothing_feeds()
    laboratory.logs.delete_group(laboratory.caller, "/aws/sagemaker/TrainingJobs")
    go(laboratory, "between")
    time.sleep(0.2)  # it opens the next epoch, and nobody writes
    laboratory.open()
    described = laboratory.wait("between")

    assert described["TrainingJobStatus"] == "Completed", described
    assert {"".join(sorted(line)) for line in laboratory.lines("between")} == {",enootw"}
    assert len(laboratory.lines("between")) == 4
    until_nothing_feeds()


@pytest.mark.parametrize("meanwhile", ["runs", "ended"])
def test_a_server_that_comes_within_an_epoch_fails_the_job(
    laboratory: Any, submit_reader: Any, put: Any, pipe: Any, meanwhile: str,
    until_nothing_feeds: Any
) -> None:
    """The reader took the end of the server for that of the epoch; even if it has completed."""
    put({"d/a": b"x" * 5_000_000})
    submit_reader("within", WAITING.replace("show", "" if meanwhile == "runs" else "print")
           .replace("('train', 1)", "time.sleep(60)" if meanwhile == "runs" else "('end')"),
           InputDataConfig=[pipe("train", "s3://tests/d/")])
    laboratory.until_printed("within", "begun 1")
    laboratory.close(keep_running=True)
    go(laboratory, "within")
    if meanwhile == "ended":
        laboratory.until_ended()
    laboratory.open()
    described = laboratory.wait("within")

    assert described["TrainingJobStatus"] == "Failed"
    assert described["FailureReason"] == (
        "InternalServerError: We encountered an internal error. Please try again. The local service"
        " ended while epoch 0 of the Pipe channel 'train' was being read, and the rest of it is"
        " lost to its reader. Submit the job again, or use FastFile, which a restart does not"
        " interrupt."
    )
    assert laboratory.onlooker.running() == []
    until_nothing_feeds()


def test_data_that_went_while_no_server_ran_fails_the_job(
    laboratory: Any, submit_reader: Any, put: Any, pipe: Any, until_nothing_feeds: Any
) -> None:
    put({"d/a": b"one"})
    submit_reader("went", "show('train', 0)\ntime.sleep(60)",
           InputDataConfig=[pipe("train", "s3://tests/d/")])
    laboratory.until_printed("went", "one")
    laboratory.close(keep_running=True)
    laboratory.open(start=False)
    laboratory.buckets.delete("tests", "d/a")
    laboratory.training.start()

    assert "No S3 objects found" in laboratory.wait("went")["FailureReason"]
    until_nothing_feeds()
