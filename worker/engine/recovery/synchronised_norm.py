"""BatchNormalization whose statistics are those of all parts of a batch, on any device.

torch has SyncBatchNorm for GPUs alone, and as a module; the torch form calls a function. The gradient is that of
Ioffe & Szegedy, "Batch Normalization", ICML 2015, arXiv 1502.03167, section 3, with its sums over all processes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import fx

from worker.engine.recovery.batch_moments import merged

_NAME = "synchronised_norm"


def synchronise_norms(network: fx.GraphModule, group: dist.ProcessGroup) -> fx.GraphModule:
    """Have each BatchNormalization of the network take its statistics of all parts in training; changed in place."""
    network.add_submodule(_NAME, SynchronisedNorm(group))
    for node in list(network.graph.nodes):
        if node.op == "call_function" and node.target is F.batch_norm:
            with network.graph.inserting_before(node):
                replacement = network.graph.call_module(_NAME, node.args, node.kwargs)
            node.replace_all_uses_with(replacement)
            network.graph.erase_node(node)
    network.recompile()
    return network


class SynchronisedNorm(torch.nn.Module):
    """Takes the arguments of torch.nn.functional.batch_norm."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        super().__init__()
        self._group = group

    def forward(
        self,
        x: torch.Tensor,
        mean: torch.Tensor | None,
        variance: torch.Tensor | None,
        scale: torch.Tensor | None,
        bias: torch.Tensor | None,
        training: bool,
        momentum: float,
        epsilon: float,
    ) -> torch.Tensor:
        if not training:
            return F.batch_norm(x, mean, variance, scale, bias, False, momentum, epsilon)
        now_mean, now_variance, count = merged(x, (0, *range(2, x.dim())), self._group)
        now_mean, now_variance = now_mean.flatten(), now_variance.flatten()
        if mean is not None and variance is not None:
            with torch.no_grad():
                mean.lerp_(now_mean.to(mean), momentum)
                variance.lerp_((now_variance * (count / max(count - 1, 1))).to(variance), momentum)
        normalised: torch.Tensor = _Normalised.apply(
            x, now_mean, now_variance, count, scale, bias, epsilon, self._group
        )
        return normalised


class _Normalised(torch.autograd.Function):
    """(x - mean) / sqrt(variance + epsilon) * scale + bias, where mean and variance are those of x in all processes."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  torch gives it no type
        x: torch.Tensor,
        mean: torch.Tensor,
        variance: torch.Tensor,
        count: float,
        scale: torch.Tensor | None,
        bias: torch.Tensor | None,
        epsilon: float,
        group: dist.ProcessGroup,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, mean, variance, scale)
        ctx.count, ctx.epsilon, ctx.group = count, epsilon, group
        return F.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        x, mean, variance, scale = ctx.saved_tensors
        shape = [1, -1, *[1] * (x.dim() - 2)]
        axes = (0, *range(2, x.dim()))
        deviation = (variance + ctx.epsilon).rsqrt().view(shape)
        normal = (x.float() - mean.view(shape)) * deviation
        gradient = gradient.float()
        of_bias, of_scale = gradient.sum(axes), (gradient * normal).sum(axes)
        sums = torch.stack([of_bias, of_scale])
        dist.all_reduce(sums, group=ctx.group)
        sums /= ctx.count
        inner = gradient - sums[0].view(shape) - normal * sums[1].view(shape)
        factor = deviation if scale is None else deviation * scale.float().view(shape)
        of_x = (inner * factor).to(x.dtype)
        if scale is None:
            return of_x, None, None, None, None, None, None, None
        return of_x, None, None, None, of_scale.to(scale.dtype), of_bias.to(scale.dtype), None, None
