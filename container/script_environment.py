"""The variables and arguments that a script is given: those of SageMaker's training toolkit.

They are made here, from the platform's files and from what is measured, without that package
(TK-05 … TK-08); a test holds every variable against the package's own. It differs in two:
SM_NUM_CPUS is what this container may use, and SM_MODULE_DIR is where the code came from also when
a variable named it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from byoa.container import contract
from byoa.container.contract import Layout, ResourceConfig
from byoa.container.contract_config import INPUT_DATA_FILE, RESOURCE_FILE
from byoa.container.contract_layout import read_json
from byoa.container.errors import HyperparameterError
from byoa.container.hardware import Hardware
from byoa.container.launch import GROUPS, LAUNCHERS
from byoa.container.script_source import SUBMIT_HYPERPARAMETER, SUBMIT_VARIABLE

LOG_LEVEL_HYPERPARAMETER = "sagemaker_container_log_level"
REGION_HYPERPARAMETER = "sagemaker_region"
OUTPUT_HYPERPARAMETER = "sagemaker_s3_output"
JOB_HYPERPARAMETER = "sagemaker_job_name"
DEFAULT_LOG_LEVEL = 20
# What the toolkit knows by name; other sagemaker_ keys are a framework's (SM_FRAMEWORK_PARAMS).
_KNOWN = frozenset({
    contract.PROGRAM_HYPERPARAMETER,
    SUBMIT_HYPERPARAMETER,
    "sagemaker_enable_cloudwatch_metrics",
    REGION_HYPERPARAMETER,
    LOG_LEVEL_HYPERPARAMETER,
    JOB_HYPERPARAMETER,
    "default_user_module_name",
    contract.TUNING_HYPERPARAMETER,
    OUTPUT_HYPERPARAMETER,
})
NEURON_SECONDS = 20.0
_NEURON_CORES = {"ml.trn2.48xlarge": 64}
VARIABLE_LIMIT_BYTES = 128 * 1024  # the kernel's, for one argument or variable with its name


@dataclass(frozen=True)
class Given:
    """What the platform and the author said of one host's training."""

    layout: Layout
    values: Mapping[str, Any]  # all hyperparameters, decoded
    entry: str | None  # None where a framework module is run
    source: str
    environ: Mapping[str, str]
    hardware: Hardware


def user_hyperparameters(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are the script's own, not the toolkit's (TK-05)."""
    return {name: value for name, value in values.items() if not _reserved(name)}


def arguments(values: Mapping[str, Any]) -> list[str]:
    """The script's arguments: `--key value` in the order of the keys, `-k` for one letter; a dict
    is `k=v,…`, a list Python's text of it, None is empty (TK-05)."""
    found: list[str] = []
    for name, value in sorted(user_hyperparameters(values).items()):
        if isinstance(value, dict):
            text = ",".join(f"{key}={each}" for key, each in sorted(value.items()))
        else:
            text = "" if value is None else str(value)
        found += [("--" if len(name) > 1 else "-") + name if name else "", text]
    _check_texts(values, found)
    return found


def environment(given: Given) -> tuple[dict[str, str], list[str]]:
    """The script's whole environment, and lines for the log about what had to be left out."""
    layout, values, environ = given.layout, given.values, given.environ
    variables = toolkit_variables(given)
    large = [
        name for name, value in variables.items()
        if len(os.fsencode(f"{name}={value}")) >= VARIABLE_LIMIT_BYTES
    ]
    path = [str(layout.code), *filter(None, environ.get("PYTHONPATH", "").split(os.pathsep))]
    region = _region(given)
    own = {
        "CURRENT_HOST": variables["SM_CURRENT_HOST"],
        "SAGEMAKER_JOB_NAME": str(
            values.get(JOB_HYPERPARAMETER) or environ.get("TRAINING_JOB_NAME", "")
        ),
        "SAGEMAKER_REGION": region,
        "SAGEMAKER_CONTAINER_LOG_LEVEL": variables["SM_LOG_LEVEL"],
        SUBMIT_VARIABLE: given.source,
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",  # a crash in C says where
    }
    if given.entry is not None:
        own[contract.PROGRAM_VARIABLE] = given.entry
    if region and not environ.get("AWS_DEFAULT_REGION"):
        own["AWS_DEFAULT_REGION"] = region
    notes = [
        f"{name} is left out: it would have {len(variables[name])} characters, and the kernel"
        f" passes on {VARIABLE_LIMIT_BYTES} bytes; the same is in {layout.config}" for name in large
    ]
    return {
        **environ, **own,
        **{name: value for name, value in variables.items() if name not in large},
    }, notes


def toolkit_variables(given: Given) -> dict[str, str]:
    """SM_…, by name (TK-07)."""
    layout, values = given.layout, given.values
    channels = read_json(layout.config / INPUT_DATA_FILE, dict, minimal="{}")
    directories = {name: str(layout.channel(name)) for name in channels}
    snapshot = _snapshot(given, channels, directories)
    found = {
        name: snapshot[name] for name in (
            "hosts", "network_interface_name", "user_entry_point", "resource_config",
            "input_data_config", "output_data_dir", "current_host", "current_instance_type",
            "current_instance_group", "current_instance_group_hosts", "instance_groups",
            "instance_groups_dict", "distribution_instance_groups", "is_hetero", "module_name",
            "log_level", "framework_module", "input_dir", "input_config_dir", "output_dir",
            "num_cpus", "num_gpus", "num_neurons", "model_dir", "module_dir",
            "output_intermediate_dir",
        )
    } | {
        "hps": snapshot["hyperparameters"],
        "framework_params": snapshot["additional_framework_parameters"],
        "channels": sorted(channels),
        "training_env": snapshot,
        "user_args": arguments(values),
    }
    if snapshot["topology"]:
        found["topology"] = snapshot["topology"]
    found |= {f"channel_{name}": path for name, path in directories.items()}
    found |= {f"hp_{name}": value for name, value in snapshot["hyperparameters"].items()}
    return {f"SM_{name.upper()}": _text(value) for name, value in found.items()}


def _snapshot(
    given: Given, channels: Mapping[str, Any], directories: Mapping[str, str]
) -> dict[str, Any]:
    """SM_TRAINING_ENV: what the toolkit's Environment shows."""
    layout, values, environ = given.layout, given.values, given.environ
    document = read_json(layout.config / RESOURCE_FILE, dict, minimal="{}")
    resources = ResourceConfig.read(layout)
    framework = {
        name: value for name, value in values.items()
        if name.startswith(contract.RESERVED_HYPERPARAMETER_PREFIX) and name not in _KNOWN
    }
    groups = {each["instance_group_name"]: each for each in document.get("instance_groups") or ()}
    own_group = resources.current_group_name
    distribution = framework.get(
        GROUPS, [own_group] if any(map(framework.get, LAUNCHERS)) else []
    )
    hosts = list(resources.hosts)
    distribution_hosts = [
        host for name, group in groups.items() if name in distribution for host in group["hosts"]
    ] if groups else hosts
    master = (distribution_hosts or hosts)[0]
    mp_parameters = environ.get("SM_HP_MP_PARAMETERS")
    path = environ.get("PATH")
    return {
        "additional_framework_parameters": framework,
        "channel_input_dirs": dict(directories),
        "current_host": resources.current_host,
        "current_instance_group": own_group,
        "current_instance_group_hosts": groups.get(own_group, {}).get("hosts", []),
        "current_instance_type": resources.current_instance_type,
        "distribution_hosts": distribution_hosts,
        "distribution_instance_groups": distribution,
        "framework_module": environ.get(contract.FRAMEWORK_VARIABLE),
        "hosts": hosts,
        "hyperparameters": user_hyperparameters(values),
        "input_config_dir": str(layout.config),
        "input_data_config": dict(channels),
        "input_dir": str(layout.input),
        "instance_groups": list(groups),
        "instance_groups_dict": groups,
        "is_hetero": len(groups) > 1,
        "is_master": resources.current_host == master,
        "is_modelparallel_enabled": mp_parameters and mp_parameters != "{}",
        "is_smddpmprun_installed": shutil.which("smddpmprun", path=path) is not None,
        "is_smddprun_installed": shutil.which("smddprun", path=path) is not None,
        "job_name": environ.get("TRAINING_JOB_NAME"),
        "log_level": values.get(LOG_LEVEL_HYPERPARAMETER, DEFAULT_LOG_LEVEL),
        "master_hostname": master,
        "model_dir": str(layout.model),
        "module_dir": given.source,
        "module_name": None if given.entry is None else given.entry.removesuffix(".py"),
        "network_interface_name": resources.network_interface_name,
        "num_cpus": given.hardware.threads,
        "num_gpus": len(given.hardware.gpus),
        "num_neurons": _neuron_cores(resources.current_instance_type, environ),
        "output_data_dir": str(layout.output_data),
        "output_dir": str(layout.output),
        "output_intermediate_dir": str(layout.output / "intermediate"),
        "resource_config": document,
        "topology": document.get("topology", []),
        "user_entry_point": given.entry,
    }


def _reserved(name: str) -> bool:
    return name in _KNOWN or name.startswith(contract.RESERVED_HYPERPARAMETER_PREFIX)


def _text(value: Any) -> str:
    """A variable's text: a string as it is, nothing for None, JSON for the rest (TK-06)."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _region(given: Given) -> str:
    named = given.values.get(REGION_HYPERPARAMETER)
    environ = given.environ
    return str(named or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "")


def _neuron_cores(instance_type: str, environ: Mapping[str, str]) -> int:
    """Cores of AWS's Neuron devices, as the driver's own program counts them."""
    if instance_type in _NEURON_CORES:
        return _NEURON_CORES[instance_type]
    program = shutil.which("neuron-ls", path=environ.get("PATH"))
    if program is None:
        return 0
    try:
        answer = subprocess.run(  # noqa: S603 - a fixed argv
            [program, "-j"], stdin=subprocess.DEVNULL, capture_output=True,
            timeout=NEURON_SECONDS, check=True,
        )
        return sum(int(each.get("nc_count", 0)) for each in json.loads(answer.stdout))
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0


def _check_texts(values: Mapping[str, Any], texts: Sequence[str]) -> None:
    """What the kernel passes on to no program."""
    wrong = [repr(text) for text in texts if not _passes(text)]
    wrong += [repr(name) for name in user_hyperparameters(values) if "=" in name]
    if wrong:
        raise HyperparameterError(
            "HYPERPARAMETER_NOT_PASSED", f"{', '.join(wrong)[:300]} cannot be passed to a script",
            expected="values without NUL and other text that is no Unicode, and names without `=`",
        )


def _passes(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell
        return False
