"""A torch training's state as files without pickle: tensors as safetensors, the rest as JSON.

tensors.safetensors    network, optimizer, random generators, whatever else is named
state.json             counters, scores, what the tensors belong to
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

TENSORS = "tensors.safetensors"
SCALARS = "state.json"


def write(directory: Path, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]) -> None:
    """Write both files into `directory`."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(plain, directory / TENSORS)
    (directory / SCALARS).write_text(json.dumps(scalars, indent=1), encoding="utf-8")


def read(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, on the CPU, and the scalars that `write` left."""
    scalars = json.loads((directory / SCALARS).read_text(encoding="utf-8"))
    return safetensors.torch.load_file(directory / TENSORS), scalars


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as "prefix.name"."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose name begins with "prefix.", without it."""
    cut = len(prefix) + 1
    return {name[cut:]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What the optimizer remembers, as "parameter.name"; its settings are not included."""
    return {
        f"{index}.{name}": value
        for index, slots in optimizer.state_dict()["state"].items()
        for name, value in slots.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give a new optimizer what `optimizer_tensors` took from one of the same kind."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value.clone()  # the optimizer writes to it
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def random_tensors(device: str) -> dict[str, Tensor]:
    """The states of torch's default random generators."""
    states = {"cpu": torch.get_rng_state()}
    if device == "cuda":
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random(tensors: Mapping[str, Tensor]) -> None:
    """Continue the generators; one whose device is not here any more is passed over."""
    torch.set_rng_state(tensors["cpu"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])


def copy_of(network: nn.Module) -> dict[str, Tensor]:
    """The network's tensors, detached from what training does to them next."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
