"""The files, variables and rules of /opt/ml, byte for byte (FIX-01 … FIX-05, TRAIN-30 … 145)."""

import json
import os
from pathlib import Path

import pytest

from byoa.container import contract
from byoa.container.contract import (
    ChannelConfig,
    CheckpointConfig,
    DebugHookConfig,
    InputDataConfig,
    InstanceGroup,
    Layout,
    MetricDefinition,
    ProfilerConfig,
    ResourceConfig,
    TensorBoardOutputConfig,
    TrainingJobConfig,
)
from byoa.container.contract_tables import PLACES, VARIABLES, markdown
from byoa.container.errors import ContractError

GOLDEN = Path(__file__).parent / "fixtures" / "config"


@pytest.fixture
def layout(tmp_path):
    made = Layout(tmp_path / "ml")
    made.create()
    return made


def put(layout, name, text):
    (layout.config / name).write_bytes(text if isinstance(text, bytes) else text.encode())


# --- writing, byte for byte ---


def test_hyperparameters_are_written_as_strings_in_the_request_s_order(layout):
    """FIX-01, TRAIN-40"""
    contract.write_hyperparameters(layout, {"epochs": "10", "lr": "0.1"})
    written = (layout.config / "hyperparameters.json").read_bytes()
    assert written == (GOLDEN / "fix-01-hyperparameters.json").read_bytes()


def test_no_hyperparameters_are_two_bytes(layout):
    """FIX-01, TRAIN-30"""
    contract.write_hyperparameters(layout, {})
    assert (layout.config / "hyperparameters.json").read_bytes() == b"{}"


def test_script_mode_hyperparameters_keep_their_inner_quotes(layout):
    """FIX-02, TRAIN-42"""
    golden = (GOLDEN / "fix-02-hyperparameters.json").read_bytes()
    put(layout, "hyperparameters.json", golden)
    values = contract.read_hyperparameters(layout)
    assert values["sagemaker_program"] == '"train.py"'
    contract.write_hyperparameters(layout, values)
    assert (layout.config / "hyperparameters.json").read_bytes() == golden


def test_input_data_config_matches_the_service(layout):
    """FIX-03, TRAIN-50, TRAIN-52"""
    config = InputDataConfig({
        "train": ChannelConfig(distribution="ShardedByS3Key"),
        "valid": ChannelConfig("Pipe", "FullyReplicated", "RecordIO", "application/x-recordio"),
    })
    config.write(layout)
    written = (layout.config / "inputdataconfig.json").read_bytes()
    assert written == (GOLDEN / "fix-03-inputdataconfig.json").read_bytes()
    assert InputDataConfig.read(layout) == config


def test_one_channel_without_content_type_is_107_bytes(layout):
    """TRAIN-51"""
    InputDataConfig({"training": ChannelConfig()}).write(layout)
    assert len((layout.config / "inputdataconfig.json").read_bytes()) == 107


def test_a_job_without_channels_has_an_empty_object(layout):
    """TRAIN-54"""
    InputDataConfig().write(layout)
    assert (layout.config / "inputdataconfig.json").read_bytes() == b"{}"


def test_resource_config_of_the_second_host_of_a_cluster_with_two_groups(layout):
    """FIX-04, TRAIN-60, TRAIN-61"""
    config = ResourceConfig.for_host("algo-2", [
        InstanceGroup("cpu", "ml.c5.xlarge", ("algo-1",)),
        InstanceGroup("gpu", "ml.g5.xlarge", ("algo-2", "algo-3")),
    ])
    config.write(layout)
    written = (layout.config / "resourceconfig.json").read_bytes()
    assert written == (GOLDEN / "fix-04-resourceconfig.json").read_bytes()
    assert ResourceConfig.read(layout) == config
    assert config.rank == 1


def test_a_homogeneous_host_reads_what_the_service_writes(layout):
    """TRAIN-60"""
    group = InstanceGroup(contract.HOMOGENEOUS_GROUP, "ml.c5.xlarge", ("algo-1",))
    assert contract.dump(ResourceConfig.for_host("algo-1", [group]).to_json()) == (
        '{"current_host":"algo-1","current_instance_type":"ml.c5.xlarge",'
        '"current_group_name":"homogeneousCluster","hosts":["algo-1"],"instance_groups":'
        '[{"instance_group_name":"homogeneousCluster","instance_type":"ml.c5.xlarge",'
        '"hosts":["algo-1"]}],"network_interface_name":"eth0","topology":null}'
    )


def test_hosts_are_sorted_as_text_and_rank_is_the_index():
    """TRAIN-62"""
    hosts = tuple(f"algo-{n}" for n in range(1, 12))
    config = ResourceConfig.for_host("algo-2", [InstanceGroup("g", "ml.c5.xlarge", hosts)])
    assert config.hosts[:4] == ("algo-1", "algo-10", "algo-11", "algo-2")
    assert config.rank == 3


def test_checkpoint_config_is_the_golden_file(layout):
    """FIX-05, TRAIN-74"""
    CheckpointConfig("s3://bkt/ckpt/").write(layout)
    written = (layout.config / "checkpointconfig.json").read_bytes()
    assert written == (GOLDEN / "fix-05-checkpointconfig.json").read_bytes()
    assert CheckpointConfig.read(layout) == CheckpointConfig("s3://bkt/ckpt/")


def test_metric_definitions_are_an_array_of_name_and_regex(layout):
    """TRAIN-70"""
    MetricDefinition.write_all(layout, [])
    path = layout.config / "metric-definition-regex.json"
    assert path.read_bytes() == b"[]"
    MetricDefinition.write_all(layout, [MetricDefinition("val:loss", r"loss: ([0-9\.]+)")])
    assert path.read_text() == r'[{"Name":"val:loss","Regex":"loss: ([0-9\\.]+)"}]'
    assert MetricDefinition.read_all(layout) == [MetricDefinition("val:loss", r"loss: ([0-9\.]+)")]


@pytest.mark.parametrize(("kind", "name", "values", "expected"), [
    (DebugHookConfig, "debughookconfig.json", {"S3OutputPath": "s3://b/d"},
     {"LocalPath": "/opt/ml/output/tensors", "S3OutputPath": "s3://b/d"}),
    (TensorBoardOutputConfig, "tensorboardoutputconfig.json", {"S3OutputPath": "s3://b/t"},
     {"LocalPath": "/opt/ml/output/tensorboard", "S3OutputPath": "s3://b/t"}),
    (TensorBoardOutputConfig, "tensorboardoutputconfig.json", {"LocalPath": "/x"},
     {"LocalPath": "/x"}),
    (ProfilerConfig, "profilerconfig.json", {"DisableProfiler": True}, {"DisableProfiler": True}),
    (TrainingJobConfig, "trainingjobconfig.json", {"TrainingJobName": "j"},
     {"TrainingJobName": "j"}),
])
def test_an_optional_document_mirrors_the_request(layout, kind, name, values, expected):
    """TRAIN-71, TRAIN-72, TRAIN-73"""
    assert kind.read(layout) is None
    kind(values).write(layout)
    assert json.loads((layout.config / name).read_text()) == expected
    assert kind.read(layout) == kind(values)


# --- reading what others wrote ---


def test_a_tree_of_an_old_platform_version_is_read(layout):
    """CHK-04, TRAIN-64, TRAP-13: no groups, no topology, unknown keys and files."""
    put(layout, "resourceconfig.json",
        '{"current_host":"algo-2","hosts":["algo-1","algo-2"],"network_interface_name":"ethwe",'
        '"new_key":{"a":1}}')
    put(layout, "inputdataconfig.json", '{"train":{"TrainingInputMode":"File","Extra":1},"b":null}')
    put(layout, "hyperparameters.json", '{"n":"1"}')
    put(layout, "init-config.json", "not even JSON")
    resources = ResourceConfig.read(layout)
    assert (resources.rank, resources.network_interface_name) == (1, "ethwe")
    assert (resources.instance_groups, resources.topology) == ((), None)
    assert resources.current_group_name == "homogeneousCluster"
    channels = InputDataConfig.read(layout).channels
    assert channels == {"train": ChannelConfig(), "b": ChannelConfig()}
    assert CheckpointConfig.read(layout) is None
    assert MetricDefinition.read_all(layout) == []
    assert DebugHookConfig.read(layout) is None


def test_null_and_partial_values_have_defaults(layout):
    """TRAIN-64, TRAIN-75"""
    put(layout, "resourceconfig.json",
        '{"current_host":null,"hosts":null,"instance_groups":[{}],"current_group_name":null}')
    resources = ResourceConfig.read(layout)
    assert (resources.hosts, resources.rank) == (("algo-1",), 0)
    assert resources.instance_groups == (InstanceGroup("homogeneousCluster", "local", ()),)
    put(layout, "checkpointconfig.json", "{}")
    assert CheckpointConfig.read(layout) == CheckpointConfig("", "/opt/ml/checkpoints")
    put(layout, "metric-definition-regex.json", '[{"Other":1},"x"]')
    assert MetricDefinition.read_all(layout) == []


@pytest.mark.parametrize("read", [
    contract.read_hyperparameters, InputDataConfig.read, ResourceConfig.read,
])
def test_a_missing_required_file_is_named_with_the_cure(layout, read):
    """TRAIN-75: these three always exist on the platform."""
    with pytest.raises(ContractError) as caught:
        read(layout)
    assert caught.value.code == "CONFIG_MISSING"
    assert str(layout.config) in caught.value.message
    assert "SAGEMAKER_BASE_DIR" in caught.value.remedy
    minimal = caught.value.remedy.split("by hand write ")[1].removesuffix(" there")
    assert json.loads(minimal) is not None


@pytest.mark.parametrize(("name", "text", "read"), [
    ("hyperparameters.json", "{'a': 1}", contract.read_hyperparameters),
    ("hyperparameters.json", b"\xff\xfe{", contract.read_hyperparameters),
    ("hyperparameters.json", "[]", contract.read_hyperparameters),
    ("inputdataconfig.json", '{"train":"File"}', InputDataConfig.read),
    ("resourceconfig.json", '{"current_host":"algo-9","hosts":["algo-1"]}', ResourceConfig.read),
    ("resourceconfig.json", '{"hosts":"algo-1"}', ResourceConfig.read),
    ("resourceconfig.json", '{"current_host":1}', ResourceConfig.read),
    ("resourceconfig.json", '{"instance_groups":["a"]}', ResourceConfig.read),
    ("metric-definition-regex.json", "{}", MetricDefinition.read_all),
    ("checkpointconfig.json", "3", CheckpointConfig.read),
])
def test_a_malformed_file_is_named(layout, name, text, read):
    put(layout, name, text)
    with pytest.raises(ContractError) as caught:
        read(layout)
    assert caught.value.code == "CONFIG_INVALID"
    assert name in caught.value.message


def test_a_byte_order_mark_of_a_hand_written_file_is_no_error(layout):
    put(layout, "hyperparameters.json", b'\xef\xbb\xbf{"a":"1"}')
    assert contract.read_hyperparameters(layout) == {"a": "1"}


def test_hand_written_values_that_are_no_strings_become_their_json(layout):
    put(layout, "hyperparameters.json", '{"a":1,"b":[1, 2],"c":true,"d":null,"e":"x"}')
    assert contract.read_hyperparameters(layout) == {
        "a": "1", "b": "[1,2]", "c": "true", "d": "null", "e": "x"
    }


@pytest.mark.parametrize(("text", "value"), [
    ("10", 10), ('"10"', "10"), ("1e3", 1000.0), ("001", "001"), ("null", None),
    ("true", True), ("True", "True"), ('"adam"', "adam"), ("adam", "adam"),
    ("[1, 2]", [1, 2]), ("", ""), ("a b", "a b"),
])
def test_a_hyperparameter_is_its_json_or_itself(text, value):
    """CHK-05, TRAIN-43, TRAP-12: quoted and unquoted alike."""
    decoded = contract.decode_hyperparameter(text)
    assert (decoded, type(decoded)) == (value, type(value))


# --- the tree ---


def test_the_tree_that_exists_before_the_start(layout):
    """TRAIN-30, TRAIN-32, TRAIN-33: and no output/intermediate."""
    directories = {str(path.relative_to(layout.root)) for path in layout.root.rglob("*")}
    assert directories == {
        "input", "input/config", "input/data", "code", "model", "errors",
        "output", "output/data", "output/metrics", "output/metrics/sagemaker",
    }


def test_the_base_directory_replaces_opt_ml():
    assert Layout.from_environment({}).root == Path("/opt/ml")
    assert Layout.from_environment({"SAGEMAKER_BASE_DIR": ""}).root == Path("/opt/ml")
    moved = Layout.from_environment({"SAGEMAKER_BASE_DIR": "/x"})
    assert moved.failure == Path("/x/output/failure")


def test_contract_paths_are_translated_into_the_layout():
    layout = Layout(Path("/base"))
    assert layout.inside("/opt/ml") == Path("/base")
    assert layout.inside("/opt/ml/checkpoints/a") == Path("/base/checkpoints/a")
    assert layout.inside("/opt/mlx") == Path("/opt/mlx")
    assert layout.channel("train") == Path("/base/input/data/train")
    assert layout.manifest("train") == Path("/base/input/data/train-manifest")
    assert layout.fifo("train", 0) == Path("/base/input/data/train_0")


# --- environment and outcome ---


def test_platform_variables_win_over_the_user_s():
    """TRAIN-80, TRAIN-83, TRAIN-196"""
    environ = contract.training_environment(
        job_name="j", job_arn="arn:aws:sagemaker:eu-west-1:1:training-job/j", region="eu-west-1",
        user={"AWS_REGION": "x", "MINE": "1"},
    )
    assert environ["AWS_REGION"] == environ["AWS_DEFAULT_REGION"] == "eu-west-1"
    assert environ["TRAINING_JOB_NAME"] == "j"
    assert environ["PYTHONUNBUFFERED"] == "1"
    assert environ["MINE"] == "1"
    assert not any(name.startswith("SM_") for name in environ)  # TRAIN-84
    assert contract.hosting_environment(region="r", user={"A": "b"})["A"] == "b"


@pytest.mark.parametrize("prefix", ["s3://bkt/out", "s3://bkt/out/"])
def test_the_artifact_uri_has_one_slash(prefix):
    """TRAIN-130"""
    assert contract.artifact_uri(prefix, "job-1") == "s3://bkt/out/job-1/output/model.tar.gz"


def test_failure_reasons_are_in_the_service_s_words():
    """TRAIN-142, CHK-34"""
    assert contract.failure_reason(1, None) == "AlgorithmError: , exit code: 1"
    assert contract.failure_reason(127, None) == "AlgorithmError: , exit code: 127"
    assert contract.failure_reason(1, "bad") == "AlgorithmError: bad, exit code: 1"
    assert contract.failure_reason(257, "bad").endswith("exit code: 1")  # TRAIN-144
    long = contract.failure_reason(1, "x" * 5000)
    assert len(long) == 1024
    assert long.endswith("x, exit code: 1")
    out_of_memory = contract.failure_reason(137, None, out_of_memory=True)
    assert out_of_memory.startswith("ClientError: Please use an instance type with more memory")
    assert contract.failure_reason(1, "mine", out_of_memory=True).startswith("AlgorithmError: mine")
    assert contract.download_failure_reason("x" * 2000).startswith("ClientError: Data download")
    assert len(contract.download_failure_reason("x" * 2000)) == 1024


def test_the_failure_file_holds_at_most_what_the_service_shows(layout):
    """TRAIN-141"""
    assert contract.read_failure(layout) is None
    contract.write_failure(layout, "é" * 2000)
    assert contract.read_failure(layout) == "é" * 1024
    layout.failure.write_bytes(b"caf\xe9" + b"x" * 2000)
    assert contract.read_failure(layout) == "caf\ufffd" + "x" * 1020
    contract.write_failure(layout, "lone \ud800 surrogate")
    assert contract.read_failure(layout) == "lone ? surrogate"


def test_a_failure_that_is_no_regular_file_is_no_failure_text(layout):
    """TRAIN-141: a FIFO there must not block the reader."""
    os.mkfifo(layout.failure)
    assert contract.read_failure(layout) is None
    layout.failure.unlink()
    layout.failure.mkdir()
    assert contract.read_failure(layout) is None


# --- the tables ---


def test_every_config_file_that_can_be_written_is_in_the_table(layout):
    contract.write_hyperparameters(layout, {})
    InputDataConfig().write(layout)
    ResourceConfig().write(layout)
    MetricDefinition.write_all(layout, [])
    CheckpointConfig("s3://b/c").write(layout)
    for kind in (DebugHookConfig, TensorBoardOutputConfig, ProfilerConfig, TrainingJobConfig):
        kind({}).write(layout)
    written = {f"input/config/{path.name}" for path in layout.config.iterdir()}
    assert written == {each.path for each in PLACES if each.path.startswith("input/config/")}


def test_every_directory_of_the_tree_is_in_the_table(layout):
    listed = [each.path for each in PLACES]
    for path in layout.root.rglob("*"):
        name = str(path.relative_to(layout.root))
        assert any(place.startswith(name) for place in listed), name


def test_every_platform_variable_is_in_the_table():
    platform = {each.name for each in VARIABLES if each.setter == "platform"}
    assert set(contract.training_environment(job_name="j", job_arn="a", region="r")) <= platform
    assert set(contract.hosting_environment(region="r")) <= platform


def test_the_tables_render_as_markdown():
    text = markdown()
    assert "| `input/config/hyperparameters.json` | platform | always |" in text
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) == len(PLACES) + len(VARIABLES)
    assert {row.count(" | ") for row in rows} == {4}


def test_every_public_name_of_the_contract_exists():
    assert all(hasattr(contract, name) for name in contract.__all__)
