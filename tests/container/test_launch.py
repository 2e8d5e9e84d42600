"""Which launcher a script's hyperparameters ask for, on which hosts, with which variables."""

from __future__ import annotations

import pytest

from byoa.container import launch
from byoa.container.contract import InstanceGroup, ResourceConfig
from byoa.container.errors import AlgorithmError, UnsupportedError

TORCH = {"sagemaker_torch_distributed_enabled": True}
GROUPS = (
    InstanceGroup("data", "ml.c5.xlarge", ("algo-1", "algo-10")),
    InstanceGroup("gpus", "ml.p4d.24xlarge", ("algo-2", "algo-3")),
)


def resources(host="algo-1", groups=GROUPS):
    return ResourceConfig.for_host(host, groups)


def test_without_a_distribution_the_script_is_started_plainly():
    assert launch.plan({}, resources(), 0, {}) is None
    assert launch.plan({"sagemaker_torch_distributed_enabled": "false"}, resources(), 0, {}) is None


@pytest.mark.parametrize("name", launch.TORCHRUN)
def test_torchrun_is_chosen_by_either_flag_of_the_estimator(name):
    """TK-14, TRAIN-45"""
    assert launch.plan({name: True}, resources(), 0, {}) is not None


def test_the_command_has_torchrun_s_exact_form():
    """DIST-01, CONTRA-34, CONTRA-35: rank by the order of a dictionary."""
    planned = launch.plan(TORCH, resources("algo-2"), 0, {})
    assert planned.arguments(7777) == [
        "--nnodes", "4", "--nproc_per_node", "1", "--master_addr", "algo-1",
        "--master_port", "7777", "--node_rank", "2",
    ]
    one = launch.plan(TORCH, ResourceConfig(), 0, {})
    assert one.arguments(7777) == ["--nnodes", "1", "--nproc_per_node", "1"]


@pytest.mark.parametrize(("given", "gpus", "count"), [
    ({}, 0, 1), ({}, 8, 8), ({launch.PROCESSES: 3}, 8, 3), ({launch.PROCESSES: "2"}, 0, 2),
])
def test_processes_of_a_host_are_those_asked_for_else_its_gpus_else_one(given, gpus, count):
    """DIST-02"""
    assert launch.plan({**TORCH, **given}, resources(), gpus, {}).processes == count


@pytest.mark.parametrize("wrong", ["many", 0, -1, [2]])
def test_a_number_of_processes_that_is_none_is_named(wrong):
    with pytest.raises(AlgorithmError) as caught:
        launch.plan({**TORCH, launch.PROCESSES: wrong}, resources(), 0, {})
    assert caught.value.code == "PROCESSES_INVALID"


def test_the_distribution_s_instance_groups_take_part_and_the_others_run_plainly():
    """TRAIN-45, DIST-01, CONTRA-35: the master is the first host of those that take part."""
    values = {**TORCH, launch.GROUPS: ["gpus"]}
    planned = launch.plan(values, resources("algo-3"), 8, {})
    assert (planned.hosts, planned.rank, planned.master) == (("algo-2", "algo-3"), 1, "algo-2")
    assert planned.world == 16
    assert launch.plan(values, resources("algo-10"), 0, {}) is None
    both = launch.plan({**TORCH, launch.GROUPS: ["gpus", "data"]}, resources("algo-2"), 0, {})
    assert both.hosts == ("algo-1", "algo-10", "algo-2", "algo-3")


def test_an_unknown_instance_group_is_named():
    with pytest.raises(AlgorithmError) as caught:
        launch.plan({**TORCH, launch.GROUPS: ["gpu"]}, resources(), 0, {})
    assert caught.value.code == "INSTANCE_GROUP_UNKNOWN"
    assert "data, gpus" in str(caught.value)


def test_the_processes_variables_name_the_master_and_the_interface():
    """DIST-03, DIST-04, TRAIN-63"""
    cpu = resources("algo-1")
    planned = launch.plan(TORCH, cpu, 0, {})
    assert launch.environment(planned, cpu, "ethwe", 7777) == {
        "MASTER_ADDR": "algo-1", "MASTER_PORT": "7777", "NCCL_SOCKET_IFNAME": "ethwe",
        "GLOO_SOCKET_IFNAME": "ethwe", "NCCL_PROTO": "simple", "NCCL_IB_DISABLE": "1",
        "NCCL_DEBUG": "WARN",
    }
    found = launch.environment(planned, resources("algo-2"), "eth0", 7777)
    assert found["FI_PROVIDER"] == "efa"
    assert found["FI_EFA_USE_DEVICE_RDMA"] == found["RDMAV_FORK_SAFE"] == "1"


@pytest.mark.parametrize("name", [
    "sagemaker_mpi_enabled", "sagemaker_distributed_dataparallel_enabled",
    "sagemaker_parameter_server_enabled", "sagemaker_multi_worker_mirrored_strategy_enabled",
    "sagemaker_pytorch_xla_multi_worker_enabled",
])
def test_a_launcher_that_is_not_run_is_refused_by_name_with_the_nearest(name):
    """DIST-05, DIST-09"""
    with pytest.raises(UnsupportedError) as caught:
        launch.check({name: True})
    assert caught.value.code == "LAUNCHER_UNSUPPORTED"
    assert name in caught.value.message
    assert caught.value.remedy
    launch.check({name: False})


def test_neuron_s_compiler_is_refused():
    """DIST-03"""
    with pytest.raises(UnsupportedError, match="RUN_NEURON_PARALLEL_COMPILE"):
        launch.plan(TORCH, resources(), 0, {"RUN_NEURON_PARALLEL_COMPILE": "1"})
