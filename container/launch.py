"""How a script is started on the hosts of a job: plainly, or by torchrun (TRAIN-45, DIST-01 …).

The hyperparameters that an estimator's `distribution` makes choose the launcher; those that are not
run here are refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from byoa.container.contract import ResourceConfig
from byoa.container.errors import AlgorithmError, UnsupportedError

MASTER_PORT = 7777  # DIST-02
PROCESSES = "sagemaker_mpi_num_of_processes_per_host"
GROUPS = "sagemaker_distribution_instance_groups"
TORCHRUN = ("sagemaker_torch_distributed_enabled", "sagemaker_pytorch_ddp_enabled")
_TORCH = "in the SDK: distribution={'torch_distributed': {'enabled': True}}"
# What is not run, and the nearest that is.
_REFUSED = {
    "sagemaker_mpi_enabled": f"torchrun starts the processes of every host: {_TORCH}",
    "sagemaker_distributed_dataparallel_enabled":  # DIST-09: AWS's own binaries and types
        f"torch's DistributedDataParallel has the same interface: {_TORCH}",
    "sagemaker_parameter_server_enabled": f"all-reduce does without a server; {_TORCH}",
    "sagemaker_multi_worker_mirrored_strategy_enabled":
        "leave `distribution` out; the script makes TF_CONFIG from SM_HOSTS and SM_CURRENT_HOST",
    "sagemaker_pytorch_xla_multi_worker_enabled": f"without XLA, torchrun: {_TORCH}",
}
# Every hyperparameter that chooses a launcher of many processes (TRAIN-45).
LAUNCHERS = (*TORCHRUN, *_REFUSED)
_EFA = frozenset({
    "ml.g4dn.8xlarge", "ml.g4dn.12xlarge", "ml.g5.48xlarge", "ml.p3dn.24xlarge",
    "ml.p4d.24xlarge", "ml.p4de.24xlarge", "ml.p5.48xlarge", "ml.trn1.32xlarge",
    "ml.p6e-gb200.36xlarge",
})
_RDMA = frozenset({
    "ml.p4d.24xlarge", "ml.p4de.24xlarge", "ml.trn1.32xlarge", "ml.p6e-gb200.36xlarge",
})


@dataclass(frozen=True)
class Launch:
    """A script started by torchrun: `processes` on each of `hosts`, this one's index is `rank`."""

    hosts: tuple[str, ...]
    rank: int
    processes: int

    @property
    def master(self) -> str:
        return self.hosts[0]

    @property
    def world(self) -> int:
        return len(self.hosts) * self.processes

    def describe(self) -> str:
        hosts = f" on each of {', '.join(self.hosts)}" if len(self.hosts) > 1 else ""
        return f"torchrun starts {self.processes} process(es){hosts}"

    def arguments(self, port: int) -> list[str]:
        """torchrun's, up to the script (DIST-01)."""
        given = ["--nnodes", str(len(self.hosts)), "--nproc_per_node", str(self.processes)]
        if len(self.hosts) > 1:
            given += ["--master_addr", self.master, "--master_port", str(port),
                      "--node_rank", str(self.rank)]
        return given


def check(values: Mapping[str, Any]) -> None:
    """Raise UnsupportedError for launchers that are not run here, all at once."""
    wanted = [name for name in _REFUSED if _on(values, name)]
    if wanted:
        raise UnsupportedError(
            "LAUNCHER_UNSUPPORTED", f"{', '.join(wanted)}: not run here",
            expected=f"{' or '.join(TORCHRUN)}, or no `distribution`: one process a host",
            remedy="; ".join(_REFUSED[name] for name in wanted),
        )


def plan(
    values: Mapping[str, Any], resources: ResourceConfig, gpus: int, environ: Mapping[str, str]
) -> Launch | None:
    """How torchrun is to start the script here; None where the script is started plainly: without
    such a `distribution`, and on hosts whose instance group takes no part in it."""
    if not any(_on(values, name) for name in TORCHRUN):
        return None
    if environ.get("RUN_NEURON_PARALLEL_COMPILE") == "1":
        raise UnsupportedError(
            "LAUNCHER_UNSUPPORTED", "RUN_NEURON_PARALLEL_COMPILE: Neuron devices are not run here",
            expected="CPUs or NVIDIA GPUs", remedy="remove the variable",
        )
    hosts = _hosts(values, resources)
    if resources.current_host not in hosts:
        return None
    return Launch(hosts, hosts.index(resources.current_host), _processes(values) or gpus or 1)


def environment(
    launch: Launch, resources: ResourceConfig, interface: str, port: int
) -> dict[str, str]:
    """Variables of the script's processes (DIST-03, DIST-04); a user's own win."""
    found = {
        "MASTER_ADDR": launch.master, "MASTER_PORT": str(port),
        "NCCL_SOCKET_IFNAME": interface, "GLOO_SOCKET_IFNAME": interface,
        "NCCL_PROTO": "simple", "NCCL_IB_DISABLE": "1", "NCCL_DEBUG": "WARN",
    }
    if resources.current_instance_type in _EFA:
        found["FI_PROVIDER"] = "efa"
    if resources.current_instance_type in _RDMA:
        found |= {"FI_EFA_USE_DEVICE_RDMA": "1", "RDMAV_FORK_SAFE": "1"}
    return found


def _hosts(values: Mapping[str, Any], resources: ResourceConfig) -> tuple[str, ...]:
    """Those of the instance groups that take part, in the order of all hosts."""
    groups = values.get(GROUPS)
    if not groups:
        return resources.hosts
    by_name = {group.name: group.hosts for group in resources.instance_groups}
    wanted = [groups] if isinstance(groups, str) else [str(each) for each in groups]
    unknown = [name for name in wanted if name not in by_name]
    if unknown:
        raise AlgorithmError(
            "INSTANCE_GROUP_UNKNOWN", f"{GROUPS} names {', '.join(unknown)}",
            expected=f"of {', '.join(by_name) or 'the job, which has no instance groups'}",
            remedy="name in `distribution` the job's own instance groups",
        )
    return tuple(sorted(host for name in wanted for host in by_name[name]))


def _processes(values: Mapping[str, Any]) -> int:
    given = values.get(PROCESSES)
    if given is None or given == "":
        return 0
    try:
        count = int(given)
    except (TypeError, ValueError):
        count = 0
    if count < 1:
        raise AlgorithmError(
            "PROCESSES_INVALID", f"{PROCESSES} is {given!r}", expected="an integer of at least 1"
        )
    return count


def _on(values: Mapping[str, Any], name: str) -> bool:
    return values.get(name) not in (None, False, "", "false", "False")
