"""CreateModel, DescribeModel, ListModels, DeleteModel by unmodified boto3."""

import hashlib

import pytest
from botocore.exceptions import ClientError
from hosting_harness import BUCKET, IMAGE, archive

from byoa.container.errors import DataError
from byoa.local.control.model_data import locate, model_data, remove_tree
from byoa.local.errors import ValidationException
from byoa.local.storage.buckets import Buckets

ARN = "arn:aws:sagemaker:us-west-2:123456789012:model/m"


def create(hosting, container=None, **members):
    if container is not None:
        members["PrimaryContainer"] = {"Image": IMAGE, **container}
    return hosting.sm.create_model(**{"ModelName": "m", **members})


def refusal(hosting, container=None, **members) -> str:
    with pytest.raises(ClientError) as raised:
        create(hosting, container, **members)
    error = raised.value.response["Error"]
    assert error["Code"] == "ValidationException"
    return error["Message"]


def test_a_model_is_described_as_it_was_created(hosting):
    """HOST-06, WIRE-08, WIRE-09, WIRE-12."""
    role = "arn:aws:iam::123456789012:role/r"
    data = hosting.put("a/model.tar.gz", archive(model__txt="x"))
    answer = create(hosting, {"ModelDataUrl": data, "Environment": {"A": "1"}},
                    ExecutionRoleArn=role, Tags=[{"Key": "k", "Value": "v"}])
    assert answer["ModelArn"] == ARN
    described = hosting.sm.describe_model(ModelName="m")
    assert described["ModelArn"] == ARN
    assert described["ExecutionRoleArn"] == role
    assert described["EnableNetworkIsolation"] is False
    assert described["PrimaryContainer"] == {
        "Image": IMAGE, "Mode": "SingleModel", "ModelDataUrl": data, "Environment": {"A": "1"}
    }
    assert hosting.sm.list_tags(ResourceArn=ARN)["Tags"] == [{"Key": "k", "Value": "v"}]


def test_a_model_of_one_entry_in_containers_is_a_model(hosting):
    """HOST-06."""
    create(hosting, Containers=[{"Image": IMAGE}])
    assert hosting.sm.describe_model(ModelName="m")["Containers"][0]["Image"] == IMAGE


def test_a_second_model_of_the_name_is_refused_in_the_services_words(hosting):
    """WIRE-05, WIRE-06: the SDK goes on when it reads this sentence."""
    create(hosting, {})
    assert refusal(hosting, {}) == f'Cannot create already existing model "{ARN}".'


def test_an_unknown_model_is_told_in_the_services_words(hosting):
    """WIRE-06."""
    for call in (hosting.sm.describe_model, hosting.sm.delete_model):
        with pytest.raises(ClientError) as raised:
            call(ModelName="m")
        assert raised.value.response["Error"]["Message"] == f'Could not find model "{ARN}".'


def test_models_are_listed_newest_first_and_deleted(hosting):
    """WIRE-10."""
    for name in ("one", "two", "three"):
        hosting.create_model(name)
    hosting.sm.delete_model(ModelName="two")
    listed = hosting.sm.list_models()
    assert [each["ModelName"] for each in listed["Models"]] == ["three", "one"]
    assert set(listed["Models"][0]) == {"ModelName", "ModelArn", "CreationTime"}


@pytest.mark.parametrize(
    ("container", "members", "words"),
    [
        ({"Mode": "MultiModel"}, {}, ("MultiModel", "ModelDataUrl")),
        ({"Mode": "MultiModel", "ModelDataUrl": "s3://models/one.tar.gz"}, {}, ("ends with '/'",)),
        ({"MultiModelConfig": {"ModelCacheSetting": "Disabled"}}, {}, ("Mode MultiModel",)),
        ({"ModelPackageName": "pkg"}, {}, ("ModelPackageName", "ModelDataUrl")),
        ({"ImageConfig": {"RepositoryAccessMode": "Vpc"}}, {}, ("Vpc", "Platform")),
        ({}, {"EnableNetworkIsolation": True}, ("EnableNetworkIsolation false",)),
        ({}, {"InferenceExecutionConfig": {"Mode": "Direct"}}, ("Direct", "Serial")),
        ({"Image": "pytorch:2"}, {}, ("pytorch:2", "byoa")),
        ({"AdditionalModelDataSources": [{"ChannelName": "c", "S3DataSource": {
            "S3Uri": "s3://b/k", "S3DataType": "S3Object", "CompressionType": "Gzip"}}]}, {},
         ("AdditionalModelDataSources", "ModelDataSource")),
        (None, {}, ("either PrimaryContainer or Containers",)),
        ({}, {"Containers": [{"Image": IMAGE}]}, ("either PrimaryContainer or Containers",)),
        (None, {"Containers": [{"Image": IMAGE}] * 2}, ("2 Containers", "one container")),
        ({"ModelDataUrl": "s3://models/none.tar.gz"}, {}, ("s3://models/none.tar.gz", "upload")),
        ({"ModelDataUrl": "s3://models/prefix/"}, {}, ("S3Prefix",)),
        ({"ModelDataUrl": "https://example.com/m.tar.gz"}, {}, ("no S3 address",)),
        ({"Environment": {f"K{n}": "x" * 1000 for n in range(40)}}, {}, ("bytes",)),
        ({"Mode": "MultiModel", "ModelDataSource": {"S3DataSource": {
            "S3Uri": "s3://b/m/", "S3DataType": "S3Prefix", "CompressionType": "None"}}}, {},
         ("MultiModel", "no ModelDataSource")),
    ],
)
def test_what_is_not_run_is_refused_at_once_with_the_nearest(hosting, container, members, words):
    """HOST-05 … HOST-07, HOST-45."""
    message = refusal(hosting, container, **members)
    for word in words:
        assert word in message
    assert hosting.sm.list_models()["Models"] == []


@pytest.mark.parametrize(
    ("container", "members", "where"),
    [
        ({"Environment": {f"K{n}": "" for n in range(101)}}, {}, "primaryContainer.environment"),
        ({"Environment": {"K" * 1025: ""}}, {}, "primaryContainer.environment"),
        ({"Environment": {"A-B": ""}}, {}, "primaryContainer.environment"),
        ({"Environment": {"K": "v" * 1025}}, {}, "primaryContainer.environment.K"),
        ({"Image": "i" * 256}, {}, "primaryContainer.image"),
        ({"Image": "an image"}, {}, "primaryContainer.image"),
        ({"ModelDataUrl": f"s3://models/{'k' * 1013}"}, {}, "primaryContainer.modelDataUrl"),
        ({"Mode": "ManyModels"}, {}, "primaryContainer.mode"),
        ({"ContainerHostname": "-front"}, {}, "primaryContainer.containerHostname"),
        (None, {"Containers": [{"Image": IMAGE}] * 16}, "containers"),
        ({}, {"ModelName": "m-"}, "modelName"),
        ({}, {"ModelName": "m" * 64}, "modelName"),
    ],
)
def test_a_definition_has_the_limits_of_the_api(hosting, container, members, where):
    """HOST-04 … HOST-06."""
    assert f"at '{where}" in refusal(hosting, container, **members)


def test_a_definition_within_the_limits_of_the_api_is_taken(hosting):
    """HOST-05, HOST-06."""
    environment = {f"K{n}": "" for n in range(98)} | {"K" * 1024: "", "_": "v" * 1024}
    create(hosting, {"Environment": environment, "ContainerHostname": "front-1"})
    described = hosting.sm.describe_model(ModelName="m")["PrimaryContainer"]
    assert described["Environment"] == environment


def test_all_problems_of_a_model_are_told_at_once(hosting):
    wrong = {"ImageConfig": {"RepositoryAccessMode": "Vpc"}, "ModelPackageName": "pkg"}
    message = refusal(hosting, wrong)
    assert all(word in message for word in ("RepositoryAccessMode", "ModelPackageName"))


# --- where artifacts are ---


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/a/model.tar.gz",
        "https://bucket.s3.amazonaws.com/a/model.tar.gz",
        "https://bucket.s3.eu-west-1.amazonaws.com/a/model.tar.gz",
        "https://bucket.s3-eu-west-1.amazonaws.com/a/model.tar.gz",
        "https://s3.amazonaws.com/bucket/a/model.tar.gz",
        "https://s3.eu-west-1.amazonaws.com/bucket/a/model.tar.gz",
        "https://s3-eu-west-1.amazonaws.com/bucket/a/model.tar.gz",
        "https://bucket.s3.dualstack.eu-west-1.amazonaws.com/a/model.tar.gz",
        "https://bucket.s3.cn-north-1.amazonaws.com.cn/a/model.tar.gz",
    ],
)
def test_every_form_of_an_s3_address_is_understood(url):
    """Notebooks write ModelDataUrl in all of these."""
    assert locate(url) == ("bucket", "a/model.tar.gz")


@pytest.fixture
def buckets(tmp_path):
    made = Buckets(tmp_path / "home")
    made.create(BUCKET)
    yield made
    made.close()


def source(uri: str, kind: str, compression: str, **more) -> dict:
    return {"ModelDataSource": {"S3DataSource": {
        "S3Uri": uri, "S3DataType": kind, "CompressionType": compression, **more}}}


def contents(directory) -> dict[str, str]:
    return {str(path.relative_to(directory)): path.read_text()
            for path in directory.rglob("*") if path.is_file()}


def test_an_archive_is_unpacked_and_read_only(buckets, tmp_path):
    """HOST-40."""
    buckets.put_bytes(BUCKET, "m.tar.gz", archive(model__txt="x"))
    data = model_data({"ModelDataUrl": f"s3://{BUCKET}/m.tar.gz"}, "c")
    target = tmp_path / "model"
    data.download(buckets, target)
    assert contents(target) == {"model.txt": "x"}
    assert not (target.stat().st_mode | (target / "model.txt").stat().st_mode) & 0o222
    remove_tree(target)
    assert not target.exists()


def test_an_uncompressed_prefix_keeps_the_layout_below_it(buckets, tmp_path):
    """HOST-43."""
    for key in ("m/config.json", "m/weights/part1", "m2/other"):
        buckets.put_bytes(BUCKET, key, key.encode())
    data = model_data(source(f"s3://{BUCKET}/m/", "S3Prefix", "None"), "c")
    data.check(buckets)
    data.download(buckets, tmp_path / "model")
    assert contents(tmp_path / "model") == {
        "config.json": "m/config.json", "weights/part1": "m/weights/part1"
    }


def test_a_single_uncompressed_object_is_named_by_its_key(buckets, tmp_path):
    """HOST-43."""
    buckets.put_bytes(BUCKET, "a/b/model.onnx", b"onnx")
    data = model_data(source(f"s3://{BUCKET}/a/b/model.onnx", "S3Object", "None"), "c")
    data.download(buckets, tmp_path / "model")
    assert contents(tmp_path / "model") == {"model.onnx": "onnx"}


@pytest.mark.parametrize(
    "key", ["m/a//b", "m/./b", "m/../b", "m/folder/", "m/a\0b", "m/" + "x" * 256]
)
def test_a_prefix_with_names_that_are_no_paths_is_refused(buckets, key):
    """HOST-44, TRAP-40."""
    buckets.put_bytes(BUCKET, key, b"")
    data = model_data(source(f"s3://{BUCKET}/m/", "S3Prefix", "None"), "c")
    with pytest.raises(ValidationException, match="below the prefix"):
        data.check(buckets)


def test_a_key_that_is_file_and_folder_is_refused(buckets, tmp_path):
    """HOST-44."""
    for key in ("m/weights", "m/weights/part1"):
        buckets.put_bytes(BUCKET, key, b"x")
    data = model_data(source(f"s3://{BUCKET}/m/", "S3Prefix", "None"), "c")
    with pytest.raises(DataError, match="a file itself"):
        data.download(buckets, tmp_path / "model")


def test_an_etag_must_be_the_objects(buckets):
    """HOST-43."""
    buckets.put_bytes(BUCKET, "m.bin", b"x")
    tag = hashlib.md5(b"x").hexdigest()
    uri = f"s3://{BUCKET}/m.bin"
    model_data(source(uri, "S3Object", "None", ETag=f'"{tag}"'), "c").check(buckets)
    with pytest.raises(ValidationException, match="ETag"):
        model_data(source(uri, "S3Object", "None", ETag="0" * 32), "c").check(buckets)


@pytest.mark.parametrize(
    ("container", "words"),
    [
        (source("s3://b/k/", "S3Prefix", "Gzip"), "S3Object"),
        (source("s3://b/k", "S3Prefix", "None"), "must end with '/'"),
        (source("s3://b/k/", "S3Object", "None"), "must not end with '/'"),
        (source("s3://b/k", "S3Object", "Gzip", ManifestS3Uri="s3://b/m"), "S3Prefix"),
        ({**source("s3://b/k", "S3Object", "Gzip"), "ModelDataUrl": "s3://b/k"}, "not both"),
    ],
)
def test_contradictions_in_the_data_source_are_refused(container, words):
    """HOST-43."""
    with pytest.raises(ValidationException, match=words):
        model_data(container, "c")


def test_two_that_remove_one_tree_at_once_are_both_done(tmp_path):
    """An endpoint that failed clears up while it is deleted."""
    from concurrent.futures import ThreadPoolExecutor

    for attempt in range(20):
        tree = tmp_path / str(attempt)
        for number in range(20):
            folder = tree / str(number) / "model"
            folder.mkdir(parents=True)
            (folder / "weights").write_bytes(b"")
            folder.chmod(0o500)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(remove_tree, [tree] * 4))
        assert not tree.exists()
