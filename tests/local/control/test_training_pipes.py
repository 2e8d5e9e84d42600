"""Pipe channels as a program in the container reads them: FIFO by FIFO."""

from __future__ import annotations

import gzip
import os
import threading
import time
from typing import Any

import pytest

from byoa.container.formats.recordio import frame

pytestmark = pytest.mark.both_runners

# What programs of these jobs begin with; as TRAIN-95 and TRAIN-96 ask of them.
READER = """
data = ml / 'input/data'
def opened(name, epoch):
    path = data / f'{name}_{epoch}'
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end, f'{path} never comes'
        time.sleep(0.01)
    return path.open('rb')
def read(name, epoch):
    with opened(name, epoch) as fifo:
        return fifo.read()
def show(name, epoch):
    print(read(name, epoch).decode('latin-1').encode('unicode_escape').decode(), flush=True)
"""


@pytest.fixture
def put(laboratory: Any) -> Any:
    def put(objects: dict[str, bytes]) -> None:
        for key, data in objects.items():
            laboratory.buckets.put_bytes("tests", key, data)

    return put


@pytest.fixture
def submit(laboratory: Any, training_request: Any) -> Any:
    def submit(name: str, source: str, **members: Any) -> None:
        program = laboratory.program(READER + source) | members.pop("specification", {})
        laboratory.call("CreateTrainingJob", **training_request(
            name, AlgorithmSpecification=program, **members,
        ))

    return submit


@pytest.fixture
def pipe(channel: Any) -> Any:
    """A Pipe channel over an S3 prefix; keywords replace members, `source` those of its source."""

    def build(name: str, uri: str, *, source: Any = None, **members: Any) -> dict[str, Any]:
        made: dict[str, Any] = channel(name, uri, **{"InputMode": "Pipe", **members})
        made["DataSource"]["S3DataSource"].update(source or {})
        return made

    return build


def shown(data: bytes) -> str:
    return data.decode("latin-1").encode("unicode_escape").decode()


def feeds() -> list[str]:
    """The threads that feed pipes."""
    return [each.name for each in threading.enumerate() if each.name.startswith("pipe-")]


def descriptors() -> list[str]:
    """What this process holds open of a job's directories and buckets."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            continue
    return [each for each in found if "/jobs/" in each or "/s3/tests/" in each]


def until_none_is_left(timeout: float = 10.0) -> None:
    end = time.monotonic() + timeout
    while feeds() or descriptors():
        assert time.monotonic() < end, (feeds(), descriptors())
        time.sleep(0.02)


def test_each_epoch_is_the_objects_in_a_row_in_a_fifo_of_its_own(
    laboratory: Any, submit: Any, put: Any, pipe: Any
) -> None:
    """TRAIN-94, TRAIN-95, TRAIN-96: the first is there when the container starts; the same order in
    each; nothing but FIFOs and the manifest is to be seen."""
    put({"d/b": b"two", "d/a": b"one,", "d/c/d": b"", "other": b"no"})
    submit("epochs", """
import stat
print(sorted(p.name for p in data.iterdir()), flush=True)
print(stat.S_ISFIFO((data / 'train_0').stat().st_mode))
for epoch in range(5): show('train', epoch)
print(sorted(p.name for p in data.iterdir()))
""", InputDataConfig=[pipe("train", "s3://tests/d/")])
    described = laboratory.wait("epochs")

    assert described["TrainingJobStatus"] == "Completed", described
    assert laboratory.lines("epochs") == [
        "['train-manifest', 'train_0']", "True", *["one,two"] * 5,
        "['train-manifest', 'train_4', 'train_5']",
    ]
    until_none_is_left()


def test_the_mode_of_the_job_is_that_of_channels_without_one(
    laboratory: Any, submit: Any, put: Any, pipe: Any, channel: Any
) -> None:
    """TRAIN-97, TRAIN-50, FIX-03: modes may be mixed."""
    put({"d/a": b"data"})
    submit("mixed", """
print((ml / 'input/config/inputdataconfig.json').read_text())
print((data / 'train/a').read_text())
show('valid', 0)
print((data / 'valid').exists())
""",
        specification={"TrainingInputMode": "Pipe"},
        InputDataConfig=[
            pipe("train", "s3://tests/d/", InputMode="File",
                 source={"S3DataDistributionType": "ShardedByS3Key"}),
            channel("valid", "s3://tests/d/", ContentType="application/x-recordio",
                    RecordWrapperType="RecordIO"),
        ],
    )
    assert laboratory.wait("mixed")["TrainingJobStatus"] == "Completed"
    lines = laboratory.lines("mixed")

    assert lines[0] == (
        '{"train":{"TrainingInputMode":"File","S3DistributionType":"ShardedByS3Key",'
        '"RecordWrapperType":"None"},"valid":{"ContentType":"application/x-recordio",'
        '"TrainingInputMode":"Pipe","S3DistributionType":"FullyReplicated",'
        '"RecordWrapperType":"RecordIO"}}'
    )
    assert lines[1:] == ["data", shown(frame(b"data")), "False"]


# --- what is done to the bytes --------------------------------------------------------------------


def test_gzip_objects_are_decompressed_on_their_way(
    laboratory: Any, submit: Any, put: Any, pipe: Any
) -> None:
    """TRAIN-102: several gzip files in one object, too; in File mode they stay as they are."""
    put({"d/a": gzip.compress(b"one,") + gzip.compress(b"two,"), "d/b": gzip.compress(b"three")})
    submit(
        "gzip", "show('train', 0); show('train', 1)\n"
        "print((data / 'file/a').read_bytes()[:2].hex())",
        InputDataConfig=[
            pipe("train", "s3://tests/d/", CompressionType="Gzip"),
            pipe("file", "s3://tests/d/", CompressionType="Gzip", InputMode="File"),
        ],
    )
    described = laboratory.wait("gzip")

    assert laboratory.lines("gzip") == ["one,two,three", "one,two,three", "1f8b"]
    assert [each["CompressionType"] for each in described["InputDataConfig"]] == ["Gzip"] * 2


def test_each_object_is_one_recordio_record(
    laboratory: Any, submit: Any, put: Any, pipe: Any
) -> None:
    """TRAIN-120, TRAIN-121, FIX-08; of a gzip object the decompressed bytes are the record."""
    put({"d/a": b"abc", "d/b": b"four", "d/c": b""})
    put({"z/a": gzip.compress(b"abc"), "z/b": gzip.compress(b"four"), "z/c": gzip.compress(b"")})
    submit(
        "recordio", "print(read('plain', 0).hex()); print(read('gzip', 0).hex())",
        InputDataConfig=[
            pipe("plain", "s3://tests/d/", RecordWrapperType="RecordIO"),
            pipe("gzip", "s3://tests/z/", RecordWrapperType="RecordIO", CompressionType="Gzip"),
        ],
    )
    laboratory.wait("recordio")
    wanted = "0a23d7ce0300000061626300" + (frame(b"four") + frame(b"")).hex()

    assert laboratory.lines("recordio") == [wanted, wanted]


def test_a_manifest_is_read_in_the_order_that_it_lists(
    laboratory: Any, submit: Any, put: Any, pipe: Any
) -> None:
    """TRAIN-111, FIX-06."""
    put({"d/a": b"one,", "d/b": b"two,", "m": b'[{"prefix":"s3://tests/d/"},"b","a","b"]'})
    submit("manifest", "show('m', 0); print((data / 'm-manifest').read_text())",
           InputDataConfig=[pipe("m", "s3://tests/m", source={"S3DataType": "ManifestFile"})])
    laboratory.wait("manifest")

    assert laboratory.lines("manifest") == [
        "two,one,two,", '[{"prefix":"s3://tests/m"},"b","a","b"]',
    ]


# --- augmented manifests --------------------------------------------------------------------------

AUGMENTED = {"S3DataType": "AugmentedManifestFile", "AttributeNames": ["source-ref", "class"]}


def test_an_augmented_manifest_delivers_the_attributes_of_each_line(
    laboratory: Any, submit: Any, put: Any, pipe: Any
) -> None:
    """TRAIN-113, TRAIN-114, FIX-07: records in the order of AttributeNames, or simply bytes."""
    put({
        "img/1.jpg": b"\xff\xd8one", "img/2.jpg": b"\xff\xd8two",
        "lines": b'{"source-ref":"s3://tests/img/1.jpg","class":"0","class-metadata":{"j":"l"}}\n'
                 b'\n{"class":"1","source-ref":"s3://tests/img/2.jpg"}',
        "kinds": '{"a":1.5,"b":{"x":[1,null]},"c":true,"d":"Zoë"}\n'.encode(),
    })
    submit(
        "augmented",
        "print(read('framed', 0).hex()); print(read('framed', 1).hex()); show('bare', 0)\n"
        "print(read('kinds', 0).decode())",
        InputDataConfig=[
            pipe("framed", "s3://tests/lines", source=AUGMENTED, RecordWrapperType="RecordIO"),
            pipe("bare", "s3://tests/lines", source=AUGMENTED),
            pipe("kinds", "s3://tests/kinds",
                 source=AUGMENTED | {"AttributeNames": ["d", "c", "b", "a"]}),
        ],
    )
    described = laboratory.wait("augmented")
    framed = frame(b"\xff\xd8one") + frame(b"0") + frame(b"\xff\xd8two") + frame(b"1")

    assert laboratory.lines("augmented") == [
        framed.hex(), framed.hex(), shown(b"\xff\xd8one0\xff\xd8two1"),
        'Zoëtrue{"x":[1,null]}1.5',
    ]
    source = described["InputDataConfig"][0]["DataSource"]["S3DataSource"]
    assert source["AttributeNames"] == ["source-ref", "class"]


@pytest.mark.process_only("no container starts")
@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (b'{"source-ref":"s3://t/a","class":"0"}\n{"source-ref":"s3://t/b"}',
         "line 2 of the augmented manifest s3://tests/lines has no attribute 'class', which"
         " AttributeNames asks of every line; it has 'source-ref'"),
        (b'\n\n[1]', "line 3 of the augmented manifest s3://tests/lines is no JSON object: [1]"),
        (b'{"source-ref', "line 1 of the augmented manifest s3://tests/lines is no JSON object"),
        (b'{"class":1,"source-ref":"img/1.jpg"}',
         "line 1 of the augmented manifest s3://tests/lines, attribute 'source-ref': 'img/1.jpg' is"
         " no S3 URI; expected: s3://bucket/key"),
        (b'{"class":1,"source-ref":7}', "attribute 'source-ref': '7' is no S3 URI"),
        (b'\n', "has no lines"),
    ],
)
def test_a_line_that_does_not_yield_all_attributes_fails_the_job(
    laboratory: Any, submit: Any, put: Any, pipe: Any, lines: bytes, reason: str
) -> None:
    """TRAIN-114."""
    put({"lines": lines})
    submit("lacking", "", InputDataConfig=[pipe("a", "s3://tests/lines", source=AUGMENTED)])
    described = laboratory.wait("lacking")

    assert described["FailureReason"].startswith("ClientError: Data download failed:")
    assert reason in described["FailureReason"]
    assert laboratory.statuses("lacking") == ["Starting", "Downloading", "Failed"]
    until_none_is_left()


@pytest.mark.process_only("no container starts")
@pytest.mark.parametrize(
    ("uri", "kind"), [("s3://tests/none/", "S3Prefix"), ("s3://no-such-bucket/x", "S3Prefix"),
                      ("s3://tests/none", "ManifestFile"),
                      ("s3://tests/none", "AugmentedManifestFile")],
)
def test_a_channel_without_data_fails_while_downloading(
    laboratory: Any, submit: Any, pipe: Any, uri: str, kind: str
) -> None:
    """TRAIN-92."""
    source = AUGMENTED if kind == "AugmentedManifestFile" else {"S3DataType": kind}
    submit("nothing", "", InputDataConfig=[pipe("train", uri, source=source)])
    described = laboratory.wait("nothing")

    assert described["FailureReason"].startswith("ClientError: Data download failed:")
    assert uri.split("/")[2] in described["FailureReason"]
    assert laboratory.statuses("nothing") == ["Starting", "Downloading", "Failed"]
    until_none_is_left()


# --- order ----------------------------------------------------------------------------------------


def test_a_seed_shuffles_each_epoch_anew_and_alike_for_every_channel(
    laboratory: Any, submit: Any, put: Any, pipe: Any
) -> None:
    """TRAIN-99: keys and lines; in File mode it changes nothing."""
    put({f"d/{letter}": letter.encode() for letter in "abcdefghijkl"})
    put({"lines": b"".join(b'{"class":"%c"}\n' % letter for letter in b"abcdefghijkl")})
    lines = AUGMENTED | {"AttributeNames": ["class"]}
    submit("shuffled", """
for name in ('one', 'two', 'lines', 'other'): print(*(read(name, n).decode() for n in range(3)))
print(sorted(p.name for p in (data / 'file').iterdir()) == list('abcdefghijkl'))
""", InputDataConfig=[
        pipe("one", "s3://tests/d/", ShuffleConfig={"Seed": 7}),
        pipe("two", "s3://tests/d/", ShuffleConfig={"Seed": 7}),
        pipe("lines", "s3://tests/lines", ShuffleConfig={"Seed": 7}, source=lines),
        pipe("other", "s3://tests/d/", ShuffleConfig={"Seed": 8}),
        pipe("file", "s3://tests/d/", ShuffleConfig={"Seed": 8}, InputMode="File"),
    ])
    described = laboratory.wait("shuffled")
    one, two, lines_, other, file = laboratory.lines("shuffled")

    assert one == two == lines_ != other
    orders = [*one.split(), *other.split()]
    assert len({*orders, "abcdefghijkl"}) == 7
    assert {"".join(sorted(order)) for order in orders} == {"abcdefghijkl"}
    assert file == "True"
    assert described["InputDataConfig"][0]["ShuffleConfig"] == {"Seed": 7}


HOSTS = """
me = json.loads((ml / 'input/config/resourceconfig.json').read_text())['current_host']
for name in ('many', 'one', 'lines', 'shuffled'):
    print(me, name, *(read(name, n).decode() or '-' for n in range(4)), flush=True)
"""


def test_hosts_get_shards_which_a_seed_shuffles_across_them(
    new_laboratory: Any, training_request: Any, pipe: Any
) -> None:
    """TRAIN-99, TRAIN-100, TRAIN-115: a host without objects has empty epochs; with ShuffleConfig
    what a host gets differs from epoch to epoch, and together the hosts always have all."""
    laboratory = new_laboratory("auto")
    if laboratory.runner.name == "process" and laboratory.runner.no_sandbox is not None:
        pytest.skip(f"no namespaces here: {laboratory.runner.no_sandbox}")
    for letter in "abcde":
        laboratory.buckets.put_bytes("tests", f"d/{letter}", letter.encode())
    laboratory.buckets.put_bytes("tests", "one/only", b"1")
    laboratory.buckets.put_bytes("tests", "lines", b'{"x":"p"}\n{"x":"q"}\n{"x":"r"}\n')
    shards = {"S3DataDistributionType": "ShardedByS3Key"}
    laboratory.call("CreateTrainingJob", **training_request(
        "hosts", AlgorithmSpecification=laboratory.program(READER + HOSTS),
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1},
        InputDataConfig=[
            pipe("many", "s3://tests/d/", source=shards),
            pipe("one", "s3://tests/one/", source=shards),
            pipe("lines", "s3://tests/lines",
                 source={**shards, **AUGMENTED, "AttributeNames": ["x"]}),
            pipe("shuffled", "s3://tests/d/", source=shards, ShuffleConfig={"Seed": 3}),
        ],
    ))
    assert laboratory.wait("hosts")["TrainingJobStatus"] == "Completed"
    found = {tuple(line.split()[:2]): line.split()[2:] for line in laboratory.lines("hosts")}

    assert found["algo-1", "many"] == ["ace"] * 4 and found["algo-2", "many"] == ["bd"] * 4
    assert found["algo-1", "one"] == ["1"] * 4 and found["algo-2", "one"] == ["-"] * 4
    assert found["algo-1", "lines"] == ["pr"] * 4 and found["algo-2", "lines"] == ["q"] * 4
    first, second = found["algo-1", "shuffled"], found["algo-2", "shuffled"]
    assert ["".join(sorted(a + b)) for a, b in zip(first, second, strict=True)] == ["abcde"] * 4
    assert len({"".join(sorted(each)) for each in first}) > 1


# --- readers --------------------------------------------------------------------------------------


def test_a_reader_may_close_early_and_take_its_time(
    laboratory: Any, submit: Any, put: Any, pipe: Any
) -> None:
    """TRAIN-95, TRAIN-96: a pipe holds little, and whoever closes it gets the next epoch; channels
    do not wait for each other."""
    put({"d/a": b"x" * 5_000_000, "d/b": b"end"})
    submit("early", """
for epoch in range(3):
    with opened('train', epoch) as fifo:
        print(len(fifo.read(10)))
with opened('train', 3) as slow:
    time.sleep(0.3)  # the pipe is full long since
    show('other', 0)
    print(len(slow.read()))
""", InputDataConfig=[
        pipe("train", "s3://tests/d/"), pipe("other", "s3://tests/d/b"),
        pipe("unread", "s3://tests/d/"),
    ])
    assert laboratory.wait("early")["TrainingJobStatus"] == "Completed"

    assert laboratory.lines("early") == ["10", "10", "10", "end", "5000003"]
    until_none_is_left()


def test_a_reader_of_another_user_reads(
    new_laboratory: Any, training_request: Any, pipe: Any
) -> None:
    """TRAIN-08: the FIFOs are as readable as the other files of the platform."""
    laboratory = new_laboratory("auto")
    if laboratory.runner.name == "process" and (laboratory.runner.no_sandbox or os.geteuid()):
        pytest.skip("only root may become somebody else")
    laboratory.buckets.put_bytes("tests", "d/a", b"data")
    laboratory.call("CreateTrainingJob", **training_request(
        "user", AlgorithmSpecification=laboratory.program(
            READER + "os.setgid(65534); os.setuid(65534)\n"
            "print(read('train', 0).decode()); print(read('train', 1).decode())\n"
            "print((data / 'fast/a').read_text())"),
        InputDataConfig=[
            pipe("train", "s3://tests/d/"), pipe("fast", "s3://tests/d/", InputMode="FastFile"),
        ],
    ))
    laboratory.wait("user")

    assert laboratory.lines("user") == ["data"] * 3


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
    laboratory: Any, submit: Any, put: Any, pipe: Any
) -> None:
    """The reader is not told that the epoch has ended, for it has not."""
    put({"d/a": b"x" * 5_000_000, "d/b": b"end"})
    submit("gone", WAITING, InputDataConfig=[pipe("train", "s3://tests/d/")])
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
    until_none_is_left()


def test_an_object_that_is_replaced_is_read_as_it_was_or_as_it_is(
    laboratory: Any, submit: Any, put: Any, pipe: Any
) -> None:
    put({"d/a": b"x" * 5_000_000})
    submit("replaced", WAITING, InputDataConfig=[pipe("train", "s3://tests/d/")])
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
    laboratory: Any, submit: Any, put: Any, pipe: Any, data: bytes, why: str, wrapper: str
) -> None:
    put({"d/a": gzip.compress(b"good"), "d/b.gz": data})
    submit("broken", "read('train', 0)\nprint('read')", InputDataConfig=[
        pipe("train", "s3://tests/d/", CompressionType="Gzip", RecordWrapperType=wrapper),
    ])
    described = laboratory.wait("broken")

    assert described["FailureReason"].startswith(
        "ClientError: Data download failed:s3://tests/d/b.gz (channel 'train', epoch 0) is no whole"
        " gzip file, as CompressionType says: "
    )
    assert why in described["FailureReason"]
    assert laboratory.lines("broken") == []
    until_none_is_left()


def test_an_object_that_a_line_names_and_that_is_not_there_fails_the_job(
    laboratory: Any, submit: Any, put: Any, pipe: Any
) -> None:
    """TRAIN-114."""
    put({"lines": b'{"source-ref":"s3://tests/none","class":"0"}'})
    submit("none", "read('a', 0)",
           InputDataConfig=[pipe("a", "s3://tests/lines", source=AUGMENTED)])

    assert "s3://tests/none (channel 'a', epoch 0) is not there" in (
        laboratory.wait("none")["FailureReason"]
    )


@pytest.mark.process_only("it is about the server's side")
def test_a_record_that_no_frame_can_hold_fails_the_job(
    laboratory: Any, submit: Any, put: Any, pipe: Any
) -> None:
    """TRAIN-121: the length has 29 bits."""
    put({"d/a": b""})
    with (laboratory.home / "s3/tests/d/a").open("wb") as file:
        file.truncate(1 << 29)
    submit("long", "read('train', 0)", InputDataConfig=[
        pipe("train", "s3://tests/d/", RecordWrapperType="RecordIO"),
    ])

    assert "has 536870912 bytes, and a RecordIO record fewer than 536870912" in (
        laboratory.wait("long")["FailureReason"]
    )


@pytest.mark.parametrize("what", ["file", "link", "directory"])
def test_nothing_but_a_fifo_is_written_to(
    laboratory: Any, submit: Any, put: Any, pipe: Any, what: str
) -> None:
    """A container's root may put a link to a file of this machine in a FIFO's place."""
    put({"d/a": b"data"})
    outside = laboratory.home / "outside"
    outside.write_text("untouched")
    submit("vandal", f"""
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
    until_none_is_left()


def test_a_fifo_that_the_container_removed_is_made_again(
    laboratory: Any, submit: Any, put: Any, pipe: Any
) -> None:
    put({"d/a": b"data"})
    submit("removed", "(data / 'train_0').unlink()\nshow('train', 0)",
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
    laboratory: Any, submit: Any, put: Any, pipe: Any, what: str, how: str
) -> None:
    """TRAIN-150: no thread, no descriptor is left."""
    put({"d/a": b"x" * 3_000_000})
    submit("endless", CRASHING + ENDLESS[what], InputDataConfig=[
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
    until_none_is_left()


def test_a_job_that_fails_by_itself_fails_for_its_own_reason(
    laboratory: Any, submit: Any, put: Any, pipe: Any
) -> None:
    put({"d/a": b"x" * 3_000_000})
    submit("own", "opened('train', 0).read(1)\nsys.exit(3)",
           InputDataConfig=[pipe("train", "s3://tests/d/")])

    assert laboratory.wait("own")["FailureReason"] == "AlgorithmError: , exit code: 3"
    until_none_is_left()


# --- another server -------------------------------------------------------------------------------


def test_a_server_that_comes_between_two_epochs_goes_on(
    laboratory: Any, submit: Any, put: Any, pipe: Any
) -> None:
    """pain 3: the reader waits for it."""
    put({"d/a": b"one,", "d/b": b"two"})
    submit("between", """
show('train', 0)
while not (ml / 'input/go').exists(): time.sleep(0.02)
for epoch in (1, 2, 3): show('train', epoch)
""", InputDataConfig=[
        pipe("train", "s3://tests/d/", ShuffleConfig={"Seed": 1}),
        pipe("unread", "s3://tests/d/"),
    ])
    laboratory.until("between", lambda job: laboratory.lines("between") != [])
    laboratory.close(keep_running=True)
    until_none_is_left()
    laboratory.logs.delete_group(laboratory.caller, "/aws/sagemaker/TrainingJobs")
    go(laboratory, "between")
    time.sleep(0.2)  # it opens the next epoch, and nobody writes
    laboratory.open()
    described = laboratory.wait("between")

    assert described["TrainingJobStatus"] == "Completed", described
    assert {"".join(sorted(line)) for line in laboratory.lines("between")} == {",enootw"}
    assert len(laboratory.lines("between")) == 4
    until_none_is_left()


@pytest.mark.parametrize("meanwhile", ["runs", "ended"])
def test_a_server_that_comes_within_an_epoch_fails_the_job(
    laboratory: Any, submit: Any, put: Any, pipe: Any, meanwhile: str
) -> None:
    """The reader took the end of the server for that of the epoch; even if it has completed."""
    put({"d/a": b"x" * 5_000_000})
    submit("within", WAITING.replace("show", "" if meanwhile == "runs" else "print")
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
    until_none_is_left()


def test_data_that_went_while_no_server_ran_fails_the_job(
    laboratory: Any, submit: Any, put: Any, pipe: Any
) -> None:
    put({"d/a": b"one"})
    submit("went", "show('train', 0)\ntime.sleep(60)",
           InputDataConfig=[pipe("train", "s3://tests/d/")])
    laboratory.until_printed("went", "one")
    laboratory.close(keep_running=True)
    laboratory.open(start=False)
    laboratory.buckets.delete("tests", "d/a")
    laboratory.training.start()

    assert "No S3 objects found" in laboratory.wait("went")["FailureReason"]
    until_none_is_left()


# --- the wire -------------------------------------------------------------------------------------


def test_a_client_submits_what_the_api_knows_of_pipes(
    server: Any, request: pytest.FixtureRequest, runner_kind: str, training_request: Any, pipe: Any
) -> None:
    """TRAIN-94, TRAIN-99, TRAIN-113, WIRE-12: with boto3, as the service's own clients do."""
    image = "byoa:latest"
    if runner_kind == "docker":
        image = request.getfixturevalue("torch_free_image")
    name, s3, sagemaker = "wire", server.client("s3"), server.client("sagemaker")
    s3.create_bucket(Bucket="pipes-tests")
    s3.put_object(Bucket="pipes-tests", Key="img/1", Body=b"one")
    s3.put_object(
        Bucket="pipes-tests", Key="lines", Body=b'{"source-ref":"s3://pipes-tests/img/1","class":0}'
    )
    channel = pipe(
        "train", "s3://pipes-tests/lines", source=AUGMENTED, RecordWrapperType="RecordIO",
        ShuffleConfig={"Seed": -7},
    )
    source = "import os; r = os.environ.get('SAGEMAKER_BASE_DIR', '/opt/ml');" \
        "open(r + '/model/x', 'wb').write(open(r + '/input/data/train_0', 'rb').read())"
    sagemaker.create_training_job(**training_request(
        name, InputDataConfig=[channel],
        OutputDataConfig={"S3OutputPath": "s3://pipes-tests/out", "CompressionType": "NONE"},
        AlgorithmSpecification={
            "TrainingImage": image, "TrainingInputMode": "File",
            "ContainerEntrypoint": ["python3", "-c", source],
        },
    ))
    sagemaker.get_waiter("training_job_completed_or_stopped").wait(TrainingJobName=name)
    described = sagemaker.describe_training_job(TrainingJobName=name)["InputDataConfig"][0]

    assert described["InputMode"] == "Pipe" and described["ShuffleConfig"] == {"Seed": -7}
    assert described["DataSource"]["S3DataSource"]["AttributeNames"] == ["source-ref", "class"]
    (found,) = s3.list_objects_v2(Bucket="pipes-tests", Prefix="out/")["Contents"]
    body = s3.get_object(Bucket="pipes-tests", Key=found["Key"])["Body"].read()
    assert body == frame(b"one") + frame(b"0")
    with pytest.raises(sagemaker.exceptions.ClientError, match="input mode Pipe, not File"):
        sagemaker.create_training_job(**training_request(
            "file", InputDataConfig=[channel | {"InputMode": "File"}],
        ))
