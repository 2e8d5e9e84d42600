"""A script's variables and arguments, held against the training toolkit's own (TK-05 … TK-08)."""

import json
import os
import subprocess
import sys

import pytest

from byoa.container.contract import Layout
from byoa.container.errors import HyperparameterError
from byoa.container.hardware import measure
from byoa.container.script_environment import (
    VARIABLE_LIMIT_BYTES,
    Given,
    arguments,
    environment,
    toolkit_variables,
)

# What the package makes of the same files, in a process of its own: it reads the platform's tree
# when it is imported.
TOOLKIT = """
import json, os
from sagemaker_training.environment import Environment
made = Environment()
names = ("CURRENT_HOST", "SAGEMAKER_JOB_NAME", "SAGEMAKER_REGION")
print(json.dumps({"variables": made.to_env_vars(), "arguments": made.to_cmd_args(),
                  "exported": {name: os.environ[name] for name in names}}))
"""
HYPERPARAMETERS = {
    "sagemaker_program": '"src/train.py"',
    "sagemaker_submit_directory": '"s3://bkt/job-1/source/sourcedir.tar.gz"',
    "sagemaker_region": '"us-west-2"', "sagemaker_job_name": '"job-1"',
    "sagemaker_container_log_level": "10", "sagemaker_s3_output": '"s3://bkt/out"',
    "sagemaker_enable_cloudwatch_metrics": "false", "default_user_module_name": '"user_module"',
    "_tuning_objective_metric": '"validation:auc"',
    "sagemaker_estimator_class_name": '"PyTorch"', "sagemaker_model_server_workers": "2",
    "sagemaker_instance_type": '"ml.p4d.24xlarge"',
    "epochs": "10", "lr": "0.1", "rate": "1e3", "b": "7", "flag": "true", "off": '"False"',
    "nothing": "null", "nan": "NaN", "layers": "[1, 2]", "names": '["a", "b c"]',
    "options": '{"z": 1, "a": [2, "x"]}', "plain": "adam", "number-as-text": '"001"', "001": "001",
    "batch-size": "32", "text": json.dumps('two words "quoted" \'single\' ünï😀 $(touch x) `id`\n'),
    "empty": '""', "dashes": '"--flag"',
}
RESOURCES = {
    "current_host": "algo-2", "current_instance_type": "ml.c5.xlarge",
    "current_group_name": "homogeneousCluster", "hosts": ["algo-1", "algo-2"],
    "instance_groups": [{
        "instance_group_name": "homogeneousCluster", "instance_type": "ml.c5.xlarge",
        "hosts": ["algo-1", "algo-2"],
    }],
    "network_interface_name": "eth0", "topology": None,
}
HETEROGENEOUS = RESOURCES | {
    "current_host": "algo-3", "current_instance_type": "ml.g5.xlarge",
    "current_group_name": "gpus", "hosts": ["algo-1", "algo-2", "algo-3"],
    "instance_groups": [
        {"instance_group_name": "cpus", "instance_type": "ml.c5.xlarge",
         "hosts": ["algo-1", "algo-2"]},
        {"instance_group_name": "gpus", "instance_type": "ml.g5.xlarge", "hosts": ["algo-3"]},
    ],
    "topology": [{"hostName": "algo-3", "capacityUnitId": "u-1"}],
}
SMALLEST = {"current_host": "algo-1", "hosts": ["algo-1"]}  # what the SDK's local mode leaves
CHANNELS = {
    "train": {"ContentType": "text/csv", "TrainingInputMode": "File",
              "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None"},
    "my-test.1": {"TrainingInputMode": "FastFile", "S3DistributionType": "ShardedByS3Key",
                  "RecordWrapperType": "None"},
}


@pytest.fixture
def layout(tmp_path):
    made = Layout(tmp_path / "ml")
    made.create()
    return made


def written(layout, hyperparameters, resources, channels):
    for name, document in (("hyperparameters", hyperparameters), ("resourceconfig", resources),
                           ("inputdataconfig", channels)):
        (layout.config / f"{name}.json").write_text(json.dumps(document))


def given(layout, hyperparameters, environ, entry="src/train.py"):
    values = {}
    for name, text in hyperparameters.items():
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    source = values.get("sagemaker_submit_directory", str(layout.code))
    return Given(layout, values, entry, source, environ, measure(environ))


CASES = {
    "one group": (HYPERPARAMETERS, RESOURCES, CHANNELS, {}),
    "groups": (HYPERPARAMETERS | {
        "sagemaker_torch_distributed_enabled": "true",
        "sagemaker_distribution_instance_groups": '["gpus"]',
    }, HETEROGENEOUS, CHANNELS, {}),
    "launcher": (HYPERPARAMETERS | {
        "sagemaker_mpi_enabled": "true", "sagemaker_mpi_num_of_processes_per_host": "2",
        "sagemaker_mpi_custom_mpi_options": '"-x NCCL_DEBUG=INFO"',
    }, RESOURCES, CHANNELS, {}),
    "variables": ({"sagemaker_program": '"train.py"', "a": "1"}, RESOURCES, {}, {
        "SAGEMAKER_TRAINING_MODULE": "framework.training:main",
        "SM_HP_MP_PARAMETERS": '{"partitions": 2}', "TRAINING_JOB_NAME": "job-7",
    }),
    "almost nothing": ({"sagemaker_program": '"train.py"', "a": "1"}, SMALLEST, {}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_every_variable_and_argument_is_the_toolkit_s(layout, case):
    """TK-05, TK-06, TK-07, TRAIN-43, TRAIN-45: variable by variable against sagemaker-training."""
    pytest.importorskip("sagemaker_training")
    hyperparameters, resources, channels, more = CASES[case]
    written(layout, hyperparameters, resources, channels)
    environ = {
        "PATH": os.environ["PATH"], "SAGEMAKER_BASE_DIR": str(layout.root),
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_CONFIG_FILE": os.devnull, **more,
    }
    printed = subprocess.run(
        [sys.executable, "-c", TOOLKIT], env=environ, capture_output=True, text=True, timeout=60,
        check=True,
    ).stdout
    theirs = json.loads(printed.splitlines()[-1])
    entry = json.loads(hyperparameters["sagemaker_program"])
    asked = given(layout, hyperparameters, environ, entry)
    ours = toolkit_variables(asked)
    assert set(ours) == set(theirs["variables"])
    cpus = str(measure(environ).threads)
    for name, value in theirs["variables"].items():
        if name == "SM_NUM_CPUS":  # what this container may use, where theirs counts the machine's
            value = cpus
        if name == "SM_TRAINING_ENV":
            expected = json.loads(value) | {"num_cpus": int(cpus)}
            # NaN is no equal of itself; the text is.
            assert json.dumps(json.loads(ours[name]), sort_keys=True) == json.dumps(
                expected, sort_keys=True
            )
        else:
            assert ours[name] == value, name
    assert arguments(asked.values) == theirs["arguments"]
    whole, notes = environment(asked)
    assert notes == []
    exported = theirs["exported"]
    exported["SAGEMAKER_JOB_NAME"] = exported["SAGEMAKER_JOB_NAME"] or more.get(
        "TRAINING_JOB_NAME", ""  # ours gives the platform's name where the client gave none
    )
    assert {name: whole[name] for name in exported} == exported


def test_arguments_are_sorted_and_of_python_s_text():
    """TK-05"""
    assert arguments({
        "z": {"k2": "v", "k": 1}, "layers": [1, "a b"], "flag": True, "none": None,
        "sagemaker_program": "train.py", "_tuning_objective_metric": "auc", "B": "x",
    }) == [
        "-B", "x", "--flag", "True", "--layers", "[1, 'a b']", "--none", "", "-z", "k=1,k2=v",
    ]


def test_the_path_the_region_and_the_job_come_along(layout):
    """TK-08, TRAIN-45"""
    written(layout, {}, RESOURCES, {})
    environ = {"PYTHONPATH": "/opt/program", "TRAINING_JOB_NAME": "job-1", "OWN": "kept"}
    whole, _ = environment(given(layout, {"sagemaker_region": '"eu-west-1"'}, environ))
    assert whole["PYTHONPATH"] == f"{layout.code}{os.pathsep}/opt/program"
    assert whole["AWS_DEFAULT_REGION"] == whole["SAGEMAKER_REGION"] == "eu-west-1"
    assert whole["SAGEMAKER_JOB_NAME"] == "job-1"
    assert whole["SAGEMAKER_SUBMIT_DIRECTORY"] == str(layout.code)
    assert whole["OWN"] == "kept"


def test_a_variable_that_the_kernel_would_not_pass_on_is_left_out_and_named(layout):
    """TRAIN-21: a hundred hyperparameters of 2,500 characters are a valid request."""
    written(layout, {}, RESOURCES, {})
    large = {f"p{number}": json.dumps("é" * 2400) for number in range(100)}
    whole, notes = environment(given(layout, large, {}))
    assert "SM_HPS" not in whole and "SM_TRAINING_ENV" not in whole
    assert whole["SM_HP_P7"] == "é" * 2400
    assert any(note.startswith("SM_HPS is left out") for note in notes)
    assert all(len(f"{k}={v}".encode()) < VARIABLE_LIMIT_BYTES for k, v in whole.items())


@pytest.mark.parametrize("values", [{"a": "x\0y"}, {"a=b": "1"}, {"a": "\ud800"}])
def test_what_no_program_can_be_given_is_an_error(values):
    with pytest.raises(HyperparameterError, match="HYPERPARAMETER_NOT_PASSED"):
        arguments(values)
