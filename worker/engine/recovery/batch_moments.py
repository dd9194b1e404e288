"""Mean and variance of a batch that several processes have parts of."""

from __future__ import annotations

import torch
import torch.distributed as dist


def merged(
    values: torch.Tensor, axes: tuple[int, ...], group: dist.ProcessGroup
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Mean and biased variance over `axes`, kept with size 1, and over the processes; how many values each is of.

    The parts' own moments are combined (Chan, Golub & LeVeque, 1979), in double precision and in the order of the
    processes: nothing cancels, and all get the same bits.
    """
    variance, mean = torch.var_mean(values.detach().float(), axes, correction=0, keepdim=True)
    count = values.numel() // max(mean.numel(), 1)
    own = torch.cat([mean.flatten(), variance.flatten(), mean.new_tensor([count])]).double()
    parts = torch.empty(group.size(), len(own), dtype=own.dtype, device=own.device)
    dist.all_gather(list(parts), own, group=group)
    counts = parts[:, -1:]
    means, variances = parts[:, :-1].chunk(2, 1)
    total = counts.sum()
    whole = (counts * means).sum(0) / total
    spread = (counts * (variances + (means - whole).square())).sum(0) / total
    return whole.to(mean).view_as(mean), spread.to(mean).view_as(mean), float(total.item())
