"""A torch training's state as files without pickle: tensors as safetensors, the rest as JSON.

tensors.safetensors    network, optimizer, whatever else is named
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


def pack(directory: Path) -> bytes:
    """Both files as one, which other hosts can be sent."""
    scalars = (directory / SCALARS).read_bytes()
    return len(scalars).to_bytes(8, "big") + scalars + (directory / TENSORS).read_bytes()


def unpack(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, on the CPU, and the scalars that `write` left and `pack` packed."""
    end = 8 + int.from_bytes(data[:8], "big")
    return safetensors.torch.load(data[end:]), json.loads(data[8:end])


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


def copy_of(network: nn.Module) -> dict[str, Tensor]:
    """The network's tensors, detached from what training does to them next."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
