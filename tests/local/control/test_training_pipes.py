"""Pipe channels as a program in the container reads them: what the bytes are, and their order."""

from __future__ import annotations

import gzip
import io
import json
import os
from typing import Any

import numpy as np
import pytest

from byoa.container.formats.recordio import frame

pytestmark = pytest.mark.both_runners


def shown(data: bytes) -> str:
    return data.decode("latin-1").encode("unicode_escape").decode()


def test_each_epoch_is_the_objects_in_a_row_in_a_fifo_of_its_own(
    laboratory: Any, submit_reader: Any, put: Any, pipe: Any, until_nothing_feeds: Any
) -> None:
    """TRAIN-94, TRAIN-95, TRAIN-96: the first is there when the container starts; the same order in
    each; nothing but FIFOs and the manifest is to be seen."""
    put({"d/b": b"two", "d/a": b"one,", "d/c/d": b"", "other": b"no"})
    submit_reader("epochs", """
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
    until_nothing_feeds()


def test_the_mode_of_the_job_is_that_of_channels_without_one(
    laboratory: Any, submit_reader: Any, put: Any, pipe: Any, channel: Any
) -> None:
    """TRAIN-97, TRAIN-50, FIX-03: modes may be mixed."""
    put({"d/a": b"data"})
    submit_reader("mixed", """
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
    laboratory: Any, submit_reader: Any, put: Any, pipe: Any
) -> None:
    """TRAIN-102: several gzip files in one object, too; in File mode they stay as they are."""
    put({"d/a": gzip.compress(b"one,") + gzip.compress(b"two,"), "d/b": gzip.compress(b"three")})
    submit_reader(
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
    laboratory: Any, submit_reader: Any, put: Any, pipe: Any
) -> None:
    """TRAIN-120, TRAIN-121, FIX-08; of a gzip object the decompressed bytes are the record."""
    put({"d/a": b"abc", "d/b": b"four", "d/c": b""})
    put({"z/a": gzip.compress(b"abc"), "z/b": gzip.compress(b"four"), "z/c": gzip.compress(b"")})
    submit_reader(
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
    laboratory: Any, submit_reader: Any, put: Any, pipe: Any
) -> None:
    """TRAIN-111, FIX-06."""
    put({"d/a": b"one,", "d/b": b"two,", "m": b'[{"prefix":"s3://tests/d/"},"b","a","b"]'})
    submit_reader("manifest", "show('m', 0); print((data / 'm-manifest').read_text())",
           InputDataConfig=[pipe("m", "s3://tests/m", source={"S3DataType": "ManifestFile"})])
    laboratory.wait("manifest")

    assert laboratory.lines("manifest") == [
        "two,one,two,", '[{"prefix":"s3://tests/m"},"b","a","b"]',
    ]


# --- augmented manifests --------------------------------------------------------------------------

AUGMENTED = {"S3DataType": "AugmentedManifestFile", "AttributeNames": ["source-ref", "class"]}


def test_an_augmented_manifest_delivers_the_attributes_of_each_line(
    laboratory: Any, submit_reader: Any, put: Any, pipe: Any
) -> None:
    """TRAIN-113, TRAIN-114, FIX-07: records in the order of AttributeNames, or simply bytes."""
    put({
        "img/1.jpg": b"\xff\xd8one", "img/2.jpg": b"\xff\xd8two",
        "lines": b'{"source-ref":"s3://tests/img/1.jpg","class":"0","class-metadata":{"j":"l"}}\n'
                 b'\n{"class":"1","source-ref":"s3://tests/img/2.jpg"}',
        "kinds": '{"a":1.5,"b":{"x":[1,null]},"c":true,"d":"Zoë"}\n'.encode(),
    })
    submit_reader(
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


def png(*values: int) -> bytes:
    image = pytest.importorskip("PIL.Image").new("L", (len(values), 1))
    image.putdata(values)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.process_only("the image has no Pillow")
@pytest.mark.parametrize("content_type", ["application/x-image", "application/x-recordio"])
def test_an_algorithm_learns_from_an_augmented_manifest_what_it_learns_from_files(
    laboratory: Any, training_request: Any, put: Any, pipe: Any, channel: Any, content_type: str
) -> None:
    """TRAIN-113, TRAIN-114: images with numbers or text as labels, as with a list of labels."""
    pictures = {f"img/{n}.png": png(n, 10 * n, 7) for n in range(6)}
    lines = [
        {"class": (str if n % 2 else int)(n // 3), "source-ref": f"s3://tests/{key}"}
        for n, key in enumerate(pictures)
    ]
    listed = "".join(f"{n}\t{n // 3}\t{n}.png\n" for n in range(6))
    put({
        **pictures, "list/train.lst": listed.encode(),
        "lines": "\n".join(map(json.dumps, lines)).encode(),
    })
    channels = {
        "pipe": [pipe("train", "s3://tests/lines", ContentType=content_type,
                      source=AUGMENTED, RecordWrapperType="RecordIO")],
        "files": [channel("train", "s3://tests/img/", ContentType="application/x-image"),
                  channel("train_lst", "s3://tests/list/")],
    }
    for name, its_channels in channels.items():
        laboratory.call("CreateTrainingJob", **training_request(
            name, Environment={"BYOA_ALGORITHM": "nearest-centroid"}, InputDataConfig=its_channels,
        ))
    models = []
    for name in channels:
        described = laboratory.wait(name, timeout=120.0)
        assert described["TrainingJobStatus"] == "Completed", (described, laboratory.lines(name))
        archive = laboratory.archive(f"output/{name}/output/model.tar.gz")
        with np.load(io.BytesIO(archive["centroids.npz"])) as arrays:
            models.append({key: arrays[key].tolist() for key in arrays})
    assert models[0] == models[1]
    assert models[0] == {"classes": [0, 1], "means": [[1, 10, 7], [4, 40, 7]]}


@pytest.mark.process_only("the image has no Pillow")
def test_a_line_whose_label_is_no_number_fails_the_job_with_its_record(
    laboratory: Any, training_request: Any, put: Any, pipe: Any
) -> None:
    """TRAIN-113: what was found, and what is expected."""
    put({
        "a.png": png(1, 2),
        "lines": b'{"source-ref":"s3://tests/a.png","class":0}\n'
                 b'{"source-ref":"s3://tests/a.png","class":"cat"}\n',
    })
    laboratory.call("CreateTrainingJob", **training_request(
        "cat", Environment={"BYOA_ALGORITHM": "nearest-centroid"},
        InputDataConfig=[pipe("train", "s3://tests/lines", ContentType="image/png",
                              source=AUGMENTED, RecordWrapperType="RecordIO")],
    ))
    described = laboratory.wait("cat", timeout=120.0)

    assert described["TrainingJobStatus"] == "Failed"
    assert "train_0 object 4: 'cat' is not a number" in described["FailureReason"]


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
    laboratory: Any, submit_reader: Any, put: Any, pipe: Any, lines: bytes, reason: str,
    until_nothing_feeds: Any
) -> None:
    """TRAIN-114."""
    put({"lines": lines})
    submit_reader("lacking", "", InputDataConfig=[pipe("a", "s3://tests/lines", source=AUGMENTED)])
    described = laboratory.wait("lacking")

    assert described["FailureReason"].startswith("ClientError: Data download failed:")
    assert reason in described["FailureReason"]
    assert laboratory.statuses("lacking") == ["Starting", "Downloading", "Failed"]
    until_nothing_feeds()


@pytest.mark.process_only("no container starts")
@pytest.mark.parametrize(
    ("uri", "kind"), [("s3://tests/none/", "S3Prefix"), ("s3://no-such-bucket/x", "S3Prefix"),
                      ("s3://tests/none", "ManifestFile"),
                      ("s3://tests/none", "AugmentedManifestFile")],
)
def test_a_channel_without_data_fails_while_downloading(
    laboratory: Any, submit_reader: Any, pipe: Any, uri: str, kind: str, until_nothing_feeds: Any
) -> None:
    """TRAIN-92."""
    source = AUGMENTED if kind == "AugmentedManifestFile" else {"S3DataType": kind}
    submit_reader("nothing", "", InputDataConfig=[pipe("train", uri, source=source)])
    described = laboratory.wait("nothing")

    assert described["FailureReason"].startswith("ClientError: Data download failed:")
    assert uri.split("/")[2] in described["FailureReason"]
    assert laboratory.statuses("nothing") == ["Starting", "Downloading", "Failed"]
    until_nothing_feeds()


# --- order ----------------------------------------------------------------------------------------


def test_a_seed_shuffles_each_epoch_anew_and_alike_for_every_channel(
    laboratory: Any, submit_reader: Any, put: Any, pipe: Any
) -> None:
    """TRAIN-99: keys and lines; in File mode it changes nothing."""
    put({f"d/{letter}": letter.encode() for letter in "abcdefghijkl"})
    put({"lines": b"".join(b'{"class":"%c"}\n' % letter for letter in b"abcdefghijkl")})
    lines = AUGMENTED | {"AttributeNames": ["class"]}
    submit_reader("shuffled", """
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
    new_laboratory: Any, training_request: Any, pipe: Any, reading: Any
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
        "hosts", AlgorithmSpecification=laboratory.program(reading(HOSTS)),
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
    laboratory: Any, submit_reader: Any, put: Any, pipe: Any, until_nothing_feeds: Any
) -> None:
    """TRAIN-95, TRAIN-96: a pipe holds little, and whoever closes it gets the next epoch; channels
    do not wait for each other."""
    put({"d/a": b"x" * 5_000_000, "d/b": b"end"})
    submit_reader("early", """
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
    until_nothing_feeds()


def test_a_reader_of_another_user_reads(
    new_laboratory: Any, training_request: Any, pipe: Any, reading: Any
) -> None:
    """TRAIN-08: the FIFOs are as readable as the other files of the platform."""
    laboratory = new_laboratory("auto")
    if laboratory.runner.name == "process" and (laboratory.runner.no_sandbox or os.geteuid()):
        pytest.skip("only root may become somebody else")
    laboratory.buckets.put_bytes("tests", "d/a", b"data")
    laboratory.call("CreateTrainingJob", **training_request(
        "user", AlgorithmSpecification=laboratory.program(reading(
            "os.setgid(65534); os.setuid(65534)\n"
            "print(read('train', 0).decode()); print(read('train', 1).decode())\n"
            "print((data / 'fast/a').read_text())"
        )),
        InputDataConfig=[
            pipe("train", "s3://tests/d/"), pipe("fast", "s3://tests/d/", InputMode="FastFile"),
        ],
    ))
    laboratory.wait("user")

    assert laboratory.lines("user") == ["data"] * 3


# --- the wire -------------------------------------------------------------------------------------


def test_a_client_submits_what_the_api_knows_of_pipes(
    server: Any, request: pytest.FixtureRequest, runner_kind: str, training_request: Any,
    pipe: Any
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
