"""torch's process group over a job's hosts, a process each: gloo on CPUs, NCCL on GPUs.

    with process_group(run) as group:
        group.sum(tensor)

A job of one host is a group of one, for which nothing is started.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from byoa.algorithms import Run
from byoa.container import network_interface
from byoa.container.errors import PeerError

CHECK_SECONDS = 60.0  # for the first sum: it connects all with all
WAIT_SECONDS = 1800.0  # for a collective, as `run.peers` has it
_NOTICE_SECONDS = 10.0  # for the peers to say who has ended, when a collective broke


class Group:
    """`rank` of `size` processes. What is collective must be called by all, in the same order."""

    def __init__(self, run: Run) -> None:
        self.rank, self.size = run.peers.rank, run.peers.size
        self._peers = run.peers

    @property
    def leads(self) -> bool:
        """Whether this is the one that prints, and writes checkpoints and the model."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Replace `tensor` by its sum over all processes, in the same bits on each."""
        if self.size > 1:
            with self._named():
                torch.distributed.all_reduce(tensor)
        return tensor

    def all_gather(self, data: bytes) -> list[bytes]:
        """What every process gives, in the order of ranks; small things."""
        return self._peers.all_gather(data)

    def broadcast(self, data: bytes | None) -> bytes:
        """What the leader gives."""
        return self._peers.broadcast(data)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """An error of torch's transport becomes the one that names the host that ended."""
        try:
            yield
        except RuntimeError as error:
            raise self._peers.lost(_NOTICE_SECONDS) or PeerError(
                "PEER_LOST", f"the processes lost one another: {error}",
                expected="every host of the job works until all are done",
                remedy="see the logs of the other hosts",
            ) from error


class Gradients:
    """All gradients in one tensor, which is summed over the processes in one go, with a word on
    whether one of them was asked to stop: so all stop at the same step (TRAIN-151)."""

    def __init__(self, network: nn.Module, group: Group) -> None:
        parameters = list(network.parameters())
        size = sum(each.numel() for each in parameters)
        self._group = group
        self._flat = torch.zeros(size + 1, device=parameters[0].device)
        start = 0
        for each in parameters:
            each.grad = self._flat[start : start + each.numel()].view_as(each)
            start += each.numel()

    def clear(self) -> None:
        self._flat.zero_()

    def sum(self, stop: bool) -> bool:
        """Whether any process is to stop."""
        self._flat[-1] = float(stop)
        return bool(self._group.sum(self._flat)[-1] > 0)


@contextlib.contextmanager
def process_group(run: Run) -> Iterator[Group]:
    """The group, checked by a sum over all; it ends with the block.

    After an error it is left to the process's end, which is near: what others see first is then the
    reason that `run.peers` tells them, and not a connection that broke.
    """
    group = Group(run)
    if group.size == 1:
        yield group
        return
    _start(run, group)
    yield group
    torch.distributed.destroy_process_group()


def _start(run: Run, group: Group) -> None:
    interface = network_interface.find(run.hosts)
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):  # TRAIN-63, TRAP-16
        os.environ.setdefault(name, interface)
    distributed: Any = torch.distributed  # its stubs leave the stores out
    limit = timedelta(seconds=CHECK_SECONDS)
    host = run.hosts.hosts[0]
    with group._named():
        if group.leads:  # on a free port, which the others are told
            store = distributed.TCPStore(
                host, 0, group.size, True, limit, wait_for_workers=False
            )
            group.broadcast(str(store.port).encode())
        else:
            port = int(group.broadcast(None))
            store = distributed.TCPStore(host, port, group.size, False, limit)
        torch.distributed.init_process_group(
            "nccl" if run.device == "cuda" else "gloo", store=store, rank=group.rank,
            world_size=group.size, timeout=timedelta(seconds=WAIT_SECONDS),
        )
        one = torch.ones((), dtype=torch.int64, device=run.device)
        torch.distributed.all_reduce(one, async_op=True).wait(limit)
    if int(one) != group.size:
        raise PeerError("PEERS_OUT_OF_STEP", f"{group.size} processes sum to {int(one)}")
    if group.leads:
        backend = torch.distributed.get_backend()
        print(f"process group: {group.size} processes by {backend} over {interface}", flush=True)
