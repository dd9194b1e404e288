"""Convolutions of any number of spatial dimensions."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from worker.engine.torch_form.operation import Operation, Value
from worker.engine.torch_form.registry import implements


@implements("Conv")
def conv(op: Operation) -> Value:
    x, weight, bias = op.tensor(0), op.tensor(1), _bias(op)
    dims = _spatial_dims(op)
    strides, dilations = op.attribute("strides", (1,) * dims), op.attribute("dilations", (1,) * dims)
    groups = op.attribute("group", 1)
    auto_pad = op.attribute("auto_pad", "NOTSET")
    if auto_pad in {"SAME_UPPER", "SAME_LOWER"}:
        x = op.call(pad_same, x, kernel_extents(op, weight, dilations), strides, auto_pad == "SAME_LOWER")
        before = after = (0,) * dims
    else:
        before, after = explicit_pads(op, dims)
    if before != after:
        x = op.call(F.pad, x, torch_pads(before, after))
        before = (0,) * dims
    return op.call(torch.convolution, x, weight, bias, strides, before, dilations, False, (0,) * dims, groups)


@implements("ConvTranspose")
def conv_transpose(op: Operation) -> Value:
    x, weight, bias = op.tensor(0), op.tensor(1), _bias(op)
    dims = _spatial_dims(op)
    strides, dilations = op.attribute("strides", (1,) * dims), op.attribute("dilations", (1,) * dims)
    groups = op.attribute("group", 1)
    extra = op.attribute("output_padding", (0,) * dims)
    output_shape = op.attribute("output_shape")
    auto_pad = op.attribute("auto_pad", "NOTSET")
    if output_shape is not None or auto_pad in {"SAME_UPPER", "SAME_LOWER"}:
        shape = None if output_shape is None else tuple(output_shape)[-dims:]
        # An odd pixel goes to the start unless SAME_UPPER is asked for: also where nothing is said.
        options = (strides, dilations, extra, groups, shape, auto_pad != "SAME_UPPER")
        return op.call(conv_transpose_to_shape, x, weight, bias, *options)
    before, after = explicit_pads(op, dims)
    if before == after:
        return op.call(torch.convolution, x, weight, bias, strides, before, dilations, True, extra, groups)
    # Torch pads both sides alike: compute the full result, then cut (or extend, for output padding) each side.
    full = op.call(torch.convolution, x, weight, None, strides, (0,) * dims, dilations, True, (0,) * dims, groups)
    cut_after = tuple(a - e for a, e in zip(after, extra, strict=True))
    return op.call(crop_with_bias, full, bias, before, cut_after)


def _bias(op: Operation) -> Value | None:
    """Zeros that training leaves alone are none: torch.export computes them where a module has no bias."""
    bias = op.optional(2)
    return None if isinstance(bias, torch.Tensor) and not bias.any() else bias


def conv_transpose_to_shape(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    extra: tuple[int, ...],
    groups: int,
    shape: tuple[int, ...] | None,
    lower: bool,
) -> torch.Tensor:
    """ConvTranspose whose pads follow from the wanted output shape (input x stride for auto_pad SAME)."""
    dims = len(strides)
    full = torch.convolution(x, weight, None, strides, (0,) * dims, dilations, True, (0,) * dims, groups)
    wanted = shape or tuple(size * s for size, s in zip(x.shape[2:], strides, strict=True))
    totals = [size + e - w for size, e, w in zip(full.shape[2:], extra, wanted, strict=True)]
    before = tuple(t - t // 2 if lower else t // 2 for t in totals)
    after = tuple(t - b - e for t, b, e in zip(totals, before, extra, strict=True))
    return crop_with_bias(full, bias, before, after)


def crop_with_bias(
    full: torch.Tensor, bias: torch.Tensor | None, before: tuple[int, ...], after: tuple[int, ...]
) -> torch.Tensor:
    """Cut the sides of a transposed convolution (negative: extend by zeros), then add the bias everywhere."""
    out = F.pad(full, torch_pads(tuple(-b for b in before), tuple(-a for a in after)))
    return out if bias is None else out + bias.reshape(-1, *(1,) * len(before))


def pad_same(
    x: torch.Tensor, extents: tuple[int, ...], strides: tuple[int, ...], lower: bool, value: float = 0.0
) -> torch.Tensor:
    """auto_pad SAME: output size = ceil(input / stride); the odd pixel goes to the end, or to the start if `lower`."""
    sizes = x.shape[2:]
    totals = [
        max((-(-size // s) - 1) * s + extent - size, 0) for size, s, extent in zip(sizes, strides, extents, strict=True)
    ]
    before = tuple(t - t // 2 if lower else t // 2 for t in totals)
    after = tuple(t - b for t, b in zip(totals, before, strict=True))
    return F.pad(x, torch_pads(before, after), value=value)


def kernel_extents(op: Operation, weight: Value, dilations: tuple[int, ...]) -> tuple[int, ...]:
    """How far a dilated kernel reaches in each spatial dimension."""
    kernel = op.attribute("kernel_shape")
    if kernel is None:
        shape = op.input_types[1].shape if not isinstance(weight, torch.Tensor) else tuple(weight.shape)
        if shape is None or not all(isinstance(s, int) for s in shape):
            raise op.unsupported("auto_pad without kernel_shape")
        kernel = shape[2:]
    return tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))


def explicit_pads(op: Operation, dims: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The `pads` attribute as (before, after) per spatial dimension."""
    pads = tuple(op.attribute("pads", (0,) * 2 * dims))
    return pads[:dims], pads[dims:]


def torch_pads(before: tuple[int, ...], after: tuple[int, ...]) -> tuple[int, ...]:
    """Pads in the order of `F.pad`: last dimension first."""
    return tuple(p for pair in zip(reversed(before), reversed(after), strict=True) for p in pair)


def _spatial_dims(op: Operation) -> int:
    for name in ("kernel_shape", "strides", "dilations"):
        values = op.attribute(name)
        if values is not None:
            return len(values)
    pads = op.attribute("pads")
    if pads is not None:
        return len(pads) // 2
    rank = op.rank(1) or op.rank(0)
    if rank is None:
        raise op.unsupported("the number of its spatial dimensions is unknown")
    return rank - 2
