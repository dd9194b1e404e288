"""Several processes of one machine train together, by torch's DistributedDataParallel.

Li et al., "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", VLDB 2020, arXiv 2006.15704.
"""

from __future__ import annotations

import warnings

import torch
import torch.distributed as dist
from torch import fx
from torch.nn.parallel import DistributedDataParallel

from worker.engine.recovery.synchronised_norm import synchronise_norms


class Together:
    """One of the processes of torch's process group. Tensors of the network go through `group`, the default one (gloo,
    or nccl for CUDA), and numbers of Python through `control`, which is a gloo group of the same processes."""

    def __init__(self, group: dist.ProcessGroup, control: dist.ProcessGroup) -> None:
        self._group, self._control = group, control
        self.processes, self.rank = group.size(), group.rank()

    def rows(self, size: int) -> slice:
        return rows(size, self.rank, self.processes)

    def weight(self, size: int) -> float:
        return weight(size, self.processes)

    def total(self, *values: float) -> tuple[float, ...]:
        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums, group=self._control)
        return tuple(sums.tolist())

    def from_first(self, value: int) -> int:
        said = torch.tensor([value], dtype=torch.int64)
        dist.broadcast(said, 0, group=self._control)
        return int(said.item())

    def joined(self, network: fx.GraphModule) -> fx.GraphModule:
        return synchronise_norms(network, self._group)

    def stepping(self, network: torch.nn.Module) -> torch.nn.Module:
        # Buffers agree without being sent: running averages are moved by statistics of whole batches. Weights that the
        # loss does not reach get no gradient, the same ones in every step: a static graph finds that out once.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of the new name of broadcast_buffers, which 2.10 lacks
            return DistributedDataParallel(
                network, process_group=self._group, broadcast_buffers=False, static_graph=True
            )


def rows(size: int, rank: int, processes: int) -> slice:
    """The part of a batch that is a process's; all of one that is too small for every process to have some."""
    return slice(0, size) if size < processes else slice(size * rank // processes, size * (rank + 1) // processes)


def weight(size: int, processes: int) -> float:
    """What makes each sample of a batch count once, however many processes have it."""
    return 1 / processes if size < processes else 1.0
