"""Pooling over windows and over everything."""

from __future__ import annotations

import math
from typing import TypeAlias

import torch
import torch.nn.functional as F

from worker.engine.torch_form.operation import Operation, Value
from worker.engine.torch_form.registry import Result, implements
from worker.engine.torch_form.rules.convolution import explicit_pads, torch_pads

Pads: TypeAlias = tuple[int, ...] | Value

_MAX_POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE_POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


@implements("MaxPool")
def max_pool(op: Operation) -> Result:
    kernel, strides, dilations = _window(op)
    x = op.tensor(0)
    if op.attribute("storage_order", 0):
        raise op.unsupported("column-major indices")
    before, after = _pads(op, x, kernel, strides, dilations)
    ceil = bool(op.attribute("ceil_mode", 0))
    pool = _MAX_POOLS.get(len(kernel))
    if pool is None:
        raise op.unsupported(f"{len(kernel)} spatial dimensions")
    indices = len(op.proto.output) > 1 and bool(op.proto.output[1])
    simple = _symmetric(kernel, before, after)
    if simple and not indices:
        return op.call(pool, x, kernel, strides, before, dilations, ceil)
    if indices:
        if not simple:
            raise op.unsupported("indices with asymmetric padding")
        return op.unpack(op.call(max_pool_with_indices, x, kernel, strides, before, dilations, ceil), 2)
    return op.call(max_pool_padded, x, kernel, strides, before, after, dilations, ceil)


@implements("AveragePool")
def average_pool(op: Operation) -> Value:
    kernel, strides, dilations = _window(op)
    x = op.tensor(0)
    before, after = _pads(op, x, kernel, strides, dilations)
    ceil, count_pads = bool(op.attribute("ceil_mode", 0)), bool(op.attribute("count_include_pad", 0))
    pool = _AVERAGE_POOLS.get(len(kernel))
    if (
        pool is not None
        and _symmetric(kernel, before, after)
        and all(d == 1 for d in dilations)
        and not (ceil and count_pads)
    ):
        return op.call(pool, x, kernel, strides, before, ceil, count_pads)
    return op.call(average_pool_of_any_shape, x, kernel, strides, before, after, dilations, ceil, count_pads)


@implements("LpPool")
def lp_pool(op: Operation) -> Value:
    kernel, strides, dilations = _window(op)
    x = op.tensor(0)
    before, after = _pads(op, x, kernel, strides, dilations)
    ceil = bool(op.attribute("ceil_mode", 0))
    return op.call(
        lp_pool_of_any_shape, x, float(op.attribute("p", 2)), kernel, strides, before, after, dilations, ceil
    )


@implements("GlobalAveragePool")
def global_average_pool(op: Operation) -> Value:
    return op.call(global_average, op.tensor(0))


@implements("GlobalMaxPool")
def global_max_pool(op: Operation) -> Value:
    return op.call(global_max, op.tensor(0))


@implements("GlobalLpPool")
def global_lp_pool(op: Operation) -> Value:
    return op.call(global_lp, op.tensor(0), float(op.attribute("p", 2)))


@implements("MaxUnpool")
def max_unpool(op: Operation) -> Value:
    kernel, strides, _ = _window(op)
    before, after = explicit_pads(op, len(kernel))
    shape = op.integers(2) if op.has(2) else None
    return op.call(unpool, op.tensor(0), op.tensor(1), kernel, strides, before, after, shape)


def global_average(x: torch.Tensor) -> torch.Tensor:
    return x.mean(dim=tuple(range(2, x.dim())), keepdim=True)


def global_max(x: torch.Tensor) -> torch.Tensor:
    return x.amax(dim=tuple(range(2, x.dim())), keepdim=True)


def global_lp(x: torch.Tensor, p: float) -> torch.Tensor:
    return x.abs().pow(p).sum(dim=tuple(range(2, x.dim())), keepdim=True).pow(1 / p)


def max_pool_padded(
    x: torch.Tensor,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    before: tuple[int, ...],
    after: tuple[int, ...],
    dilations: tuple[int, ...],
    ceil: bool,
) -> torch.Tensor:
    """Max pooling with pads of its own on each side."""
    if ceil:
        after = _ceiled(x, kernel, strides, dilations, before, after)
    lowest = -math.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
    return _MAX_POOLS[len(kernel)](F.pad(x, torch_pads(before, after), value=lowest), kernel, strides, 0, dilations)


def max_pool_with_indices(
    x: torch.Tensor,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    pads: tuple[int, ...],
    dilations: tuple[int, ...],
    ceil: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Max pooling and the positions of the maxima in the whole flattened input, as ONNX counts them."""
    out, indices = _MAX_POOLS[len(kernel)](x, kernel, strides, pads, dilations, ceil, return_indices=True)
    planes = math.prod(x.shape[:2])
    offsets = torch.arange(planes, device=x.device) * math.prod(x.shape[2:])
    return out, indices + offsets.reshape(*x.shape[:2], *(1,) * len(kernel))


def average_pool_of_any_shape(
    x: torch.Tensor,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    before: tuple[int, ...],
    after: tuple[int, ...],
    dilations: tuple[int, ...],
    ceil: bool,
    count_pads: bool,
) -> torch.Tensor:
    """The sum over each window divided by the number of its elements that count."""
    grown = _ceiled(x, kernel, strides, dilations, before, after) if ceil else after
    counted = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype, device=x.device)
    if count_pads:
        counted = F.pad(counted, torch_pads(before, after), value=1.0)
        extra = tuple(g - a for g, a in zip(grown, after, strict=True))
        counts = _window_sum(F.pad(counted, torch_pads((0,) * len(extra), extra)), kernel, strides, dilations)
    else:
        counts = _window_sum(F.pad(counted, torch_pads(before, grown)), kernel, strides, dilations)
    return _window_sum(F.pad(x, torch_pads(before, grown)), kernel, strides, dilations) / counts


def lp_pool_of_any_shape(
    x: torch.Tensor,
    p: float,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    before: tuple[int, ...],
    after: tuple[int, ...],
    dilations: tuple[int, ...],
    ceil: bool,
) -> torch.Tensor:
    """The p-norm of each window."""
    if ceil:
        after = _ceiled(x, kernel, strides, dilations, before, after)
    powers = F.pad(x.abs().pow(p), torch_pads(before, after))
    return _window_sum(powers, kernel, strides, dilations).pow(1 / p)


def unpool(
    x: torch.Tensor,
    indices: torch.Tensor,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    before: tuple[int, ...],
    after: tuple[int, ...],
    shape: tuple[int, ...] | None,
) -> torch.Tensor:
    """Put each value at its index of the flattened unpooled tensor."""
    inferred = tuple(
        (size - 1) * s + k - b - a for size, s, k, b, a in zip(x.shape[2:], strides, kernel, before, after, strict=True)
    )
    natural = (*x.shape[:2], *inferred)
    wanted = shape or natural
    flat = x.new_zeros(math.prod(natural)).scatter(0, indices.reshape(-1), x.reshape(-1)).reshape(natural)
    return F.pad(
        flat, torch_pads((0,) * len(inferred), tuple(w - n for w, n in zip(wanted[2:], inferred, strict=True)))
    )


def same_pads(
    x: torch.Tensor, kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...], lower: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The pads before and after that auto_pad SAME asks for."""
    totals = [
        max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        for size, s, k, d in zip(x.shape[2:], strides, kernel, dilations, strict=True)
    ]
    before = tuple(t - t // 2 if lower else t // 2 for t in totals)
    return before, tuple(t - b for t, b in zip(totals, before, strict=True))


def _window_sum(
    x: torch.Tensor, kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]
) -> torch.Tensor:
    """Sums over the windows of an already padded tensor, as a depthwise convolution with ones."""
    dims = len(kernel)
    planes = x.reshape(-1, 1, *x.shape[2:])
    ones = torch.ones((1, 1, *kernel), dtype=x.dtype, device=x.device)
    sums = torch.convolution(planes, ones, None, strides, (0,) * dims, dilations, False, (0,) * dims, 1)
    return sums.reshape(*x.shape[:2], *sums.shape[2:])


def _ceiled(
    x: torch.Tensor,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    before: tuple[int, ...],
    after: tuple[int, ...],
) -> tuple[int, ...]:
    """Pads at the end grown so that ceil_mode's last window fits; none starts in the end pads."""
    grown = []
    for size, k, s, d, b, a in zip(x.shape[2:], kernel, strides, dilations, before, after, strict=True):
        extent = (k - 1) * d + 1
        windows = -(-(size + b + a - extent) // s) + 1
        if (windows - 1) * s >= size + b:
            windows -= 1
        grown.append(max((windows - 1) * s + extent - size - b, a))
    return tuple(grown)


def _window(op: Operation) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    kernel = op.attribute("kernel_shape")
    ones = (1,) * len(kernel)
    return kernel, op.attribute("strides", ones), op.attribute("dilations", ones)


def _pads(
    op: Operation, x: Value, kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]
) -> tuple[Pads, Pads]:
    """Pads before and after: tuples, or run-time nodes where auto_pad makes them depend on the input's size."""
    auto_pad = op.attribute("auto_pad", "NOTSET")
    if auto_pad in {"SAME_UPPER", "SAME_LOWER"}:
        before, after = op.unpack(op.call(same_pads, x, kernel, strides, dilations, auto_pad == "SAME_LOWER"), 2)
        return before, after
    return explicit_pads(op, len(kernel))


def _symmetric(kernel: tuple[int, ...], before: Pads, after: Pads) -> bool:
    """Whether torch's own pooling takes these pads."""
    return (
        isinstance(before, tuple) and before == after and all(2 * b <= k for b, k in zip(before, kernel, strict=True))
    )
