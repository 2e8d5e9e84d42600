"""A torch training's state through files and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from byoa.algorithms import torch_state


def test_tensors_and_scalars_come_back_as_they_were(tmp_path: Path) -> None:
    shared = torch.arange(6.0).reshape(2, 3)
    tensors = {
        "a": shared,
        "b": shared.t(),
        "step": torch.tensor(3.0),
        "bytes": torch.zeros(2).byte(),
    }
    torch_state.write(tmp_path, tensors, {"epoch": 3, "best": None})
    found, scalars = torch_state.unpack(torch_state.pack(tmp_path))
    assert scalars == {"epoch": 3, "best": None}
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert {name: each.dtype for name, each in found.items()} == {
        name: each.dtype for name, each in tensors.items()
    }


def test_prefixes_do_not_mix() -> None:
    one = torch.ones(1)
    both = torch_state.prefixed("net", {"a.b": one}) | torch_state.prefixed("network", {"c": one})
    assert list(torch_state.under("net", both)) == ["a.b"]
    assert list(torch_state.under("network", both)) == ["c"]


@pytest.mark.parametrize("kind", ["AdamW", "SGD"])
def test_an_optimizer_continues_where_it_was(kind: str) -> None:
    def make() -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
        parameter = torch.nn.Parameter(torch.ones(3))
        more = {"momentum": 0.9} if kind == "SGD" else {}
        return parameter, getattr(torch.optim, kind)([parameter], lr=0.1, **more)

    def step(parameter: torch.nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
        parameter.grad = parameter.detach().clone()
        optimizer.step()

    parameter, optimizer = make()
    step(parameter, optimizer)
    other, restored = make()
    other.data.copy_(parameter.data)
    torch_state.restore_optimizer(restored, torch_state.optimizer_tensors(optimizer))
    step(parameter, optimizer)
    step(other, restored)
    assert torch.equal(parameter, other)


def test_a_checkpoint_travels_as_one_piece(tmp_path: Path) -> None:
    torch_state.write(tmp_path, {"a": torch.arange(3.0)}, {"epoch": 2})
    tensors, scalars = torch_state.unpack(torch_state.pack(tmp_path))
    assert tensors["a"].tolist() == [0.0, 1.0, 2.0]
    assert scalars == {"epoch": 2}
