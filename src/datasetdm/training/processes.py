"""Several processes that train one model together, as torchrun or `accelerate launch` starts them.

Each learns from its part of every batch; the gradients are averaged, so that all have the same weights. The first one alone
writes.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Processes:
    """A process among those that train one model.

    Args:
        rank: its number; 0 is the one that writes.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether it is the one that writes."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all have come here."""
        if self.count > 1:
            dist.barrier()

    def mean(self, value: Tensor) -> Tensor:
        """The mean over processes."""
        if self.count > 1:
            dist.all_reduce(value)
            value = value / self.count
        return value

    def average_gradients(self, module: nn.Module) -> None:
        """Give every process the mean of all gradients; a weight that one process did not use has a gradient of 0 there."""
        if self.count == 1:
            return
        weights = [p for p in module.parameters() if p.requires_grad]
        used = torch.tensor([p.grad is not None for p in weights], dtype=torch.float, device=weights[0].device)
        dist.all_reduce(used)
        weights = [p for p, n in zip(weights, used.tolist(), strict=True) if n]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in weights])
        for weight, gradient in zip(weights, self.mean(flat).split([p.numel() for p in weights]), strict=True):
            weight.grad = gradient.view_as(weight)

    def shared_statistics(self, module: nn.Module) -> nn.Module:
        """The network with the batch statistics of all processes; torch has that for GPUs only, on others each process has
        its own and the first one's are saved."""
        on_gpu = next(module.parameters()).device.type == "cuda"
        return nn.SyncBatchNorm.convert_sync_batchnorm(module) if self.count > 1 and on_gpu else module


ALONE = Processes()


@contextmanager
def joined(device: torch.device) -> Generator[tuple[Processes, torch.device]]:
    """This process among the others, if it was started as one of several, and its own device."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE, device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), count), device
    finally:
        dist.destroy_process_group()
