"""Processes that train one model together, on several GPUs or machines; usually there is only one.

They are started by torch's elastic launcher (``torchrun``, or :mod:`~crackseg.training.distributed.launching`), one
for each GPU. All of them run the same steps in the same order; they exchange data only through this module.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from crackseg.child_processes import end_with_parent
from crackseg.devices import choose_device
from crackseg.errors import CracksegError, first_line
from crackseg.training.distributed.synchronized import add_over_processes, synchronize_batch_norm

# Time that a process waits for the others. The first one writes checkpoints and records in the store while the others
# wait.
_PATIENCE = timedelta(minutes=15)


class GlobalSums:
    """Turn sums over this process's part of a batch into sums over the whole batch; see crackseg.training.losses."""

    def add(self, sums: torch.Tensor) -> torch.Tensor:
        """Add up over the processes; differentiable."""
        return add_over_processes(sums)

    def maximum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the maximum over the processes; without gradient."""
        values = values.detach().clone()
        dist.all_reduce(values, dist.ReduceOp.MAX)
        return values


@dataclass(frozen=True)
class Processes:
    """This process, and the number of processes.

    Attributes:
        rank: number of this process, from 0. The first one writes: checkpoints, records, outputs.
        size: number of processes on all machines.
        local_rank: number of this process on its machine, and of its GPU there.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def sums(self) -> GlobalSums | None:
        """Return the sums for a loss over the whole batch; None for a single process."""
        return GlobalSums() if self.size > 1 else None

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, by rank, in each of them."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: Any) -> Any:
        """Return the first process's value, in all of them."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def wrap(self, network: nn.Module, *, sync_batch_norm: bool) -> nn.Module:
        """Let the backward pass exchange gradients; weights and buffers become the first process's.

        Args:
            network: on this process's device; it still holds the weights.
            sync_batch_norm: normalise by the statistics of the whole batch.
        """
        if self.size == 1:
            return network
        if sync_batch_norm:
            network = synchronize_batch_norm(network)
        devices = [self.local_rank] if next(network.parameters()).is_cuda else None
        return DistributedDataParallel(network, device_ids=devices)

    def share_buffers(self, network: nn.Module) -> None:
        """Copy the first process's running statistics, which are saved, to all processes."""
        if self.size > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, src=0)

    def check_same(self, value: str, what: str) -> None:
        """Stop all processes if one of them has another value, since machines may differ.

        Raises:
            CracksegError: they do.
        """
        values = self.gather(value)
        others = [str(rank) for rank, other in enumerate(values) if other != values[0]]
        if others:
            raise CracksegError(
                f"process {', '.join(others)} has other {what} than process 0; bring all machines to the same commit, "
                "params.yaml and prepared images, and begin again"
            )

    @contextlib.contextmanager
    def explained_losses(self) -> Iterator[None]:
        """Raise a clear error if another process ended or stopped answering."""
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not (isinstance(error, dist.DistError) or "gloo" in str(error).lower()):
                raise
            raise CracksegError(
                f"process {self.rank} of {self.size} lost another one, which ended or did not answer within "
                f"{_PATIENCE.seconds // 60} minutes ({first_line(error, 1000)[-150:]}); its messages are above"
            ) from error


ALONE = Processes()


def is_launched() -> bool:
    """Return whether torch's elastic launcher has started this process."""
    return dist.is_available() and dist.is_torchelastic_launched()


@contextlib.contextmanager
def joined(device_name: str) -> Iterator[Processes]:
    """Join the processes that torch's launcher started, if it has started this one and others.

    Args:
        device_name: ``train.device``.
    Raises:
        CracksegError: there is no GPU for this process.
    """
    size = int(os.environ["WORLD_SIZE"]) if is_launched() else 1
    if size == 1:
        yield ALONE
        return
    end_with_parent(os.getppid())  # a killed launcher does not end its processes
    device = choose_device(device_name)
    local_rank = int(os.environ["LOCAL_RANK"])
    if device.type == "cuda":
        check_gpus(local_rank + 1)
        torch.cuda.set_device(local_rank)
    processes = Processes(int(os.environ["RANK"]), size, local_rank)
    with processes.explained_losses():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
        yield processes
        dist.destroy_process_group()  # not after an error: it would wait for processes that have ended


def check_gpus(num_processes: int) -> None:
    """Refuse more processes on this machine than it has GPUs.

    Raises:
        CracksegError: there are too few.
    """
    if num_processes > torch.cuda.device_count():
        raise CracksegError(
            f"train.num_processes: {num_processes} processes need as many GPUs, and this machine has "
            f"{torch.cuda.device_count()}; set train.num_processes to at most that, or train.device to cpu"
        )
