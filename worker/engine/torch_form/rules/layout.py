"""Ops that move, pick or repeat elements without computing on them."""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import fx

from worker.engine.torch_form.operation import PYTHON_RANK, TORCH_DTYPES, Argument, Operation, Value, known_tensor
from worker.engine.torch_form.registry import Result, implements
from worker.engine.torch_form.rules.convolution import torch_pads

_TORCH_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@implements("Identity")
def identity(op: Operation) -> Value:
    return op.given(0)


@implements("Constant")
def constant(op: Operation) -> Value:
    for name, value in ((a.name, a) for a in op.proto.attribute):
        if name in {"value_int", "value_ints"}:
            return torch.tensor(op.attribute(name), dtype=torch.int64)
        if name in {"value_float", "value_floats"}:
            return torch.tensor(op.attribute(name), dtype=torch.float32)
        if name == "value":
            return known_tensor(numpy_helper.to_array(value.t))
    raise op.unsupported("its value is neither numbers nor a dense tensor")


@implements("Shape")
def shape(op: Operation) -> Value:
    x = op.given(0)
    start, end = op.attribute("start", 0), op.attribute("end")
    if isinstance(x, torch.Tensor):
        return torch.tensor(x.shape[start:end], dtype=torch.int64)
    stored = op.input_types[0].shape
    if x.op == "get_attr" and stored is not None and all(isinstance(size, int) for size in stored):
        return torch.tensor(stored[start:end], dtype=torch.int64)
    return op.python(shape_of, op.tensor(0), start, end, rank=1)


@implements("Size")
def size(op: Operation) -> Value:
    x = op.given(0)
    if isinstance(x, torch.Tensor):
        return torch.tensor(x.numel())
    return op.python(size_of, op.tensor(0), rank=0)


@implements("Reshape")
def reshape(op: Operation) -> Value:
    x = op.tensor(0)
    wanted = tuple(op.attribute("shape")) if op.opset < 5 else op.integers(1)
    zero_copies = not op.attribute("allowzero", 0)
    if isinstance(wanted, tuple) and wanted and zero_copies and wanted[0] == op.batch_size(0):
        wanted = (0, *wanted[1:])
    if isinstance(wanted, tuple) and not (zero_copies and 0 in wanted):
        return op.call(torch.reshape, x, wanted)
    return op.call(reshape_to, x, wanted, zero_copies)


@implements("Flatten")
def flatten(op: Operation) -> Value:
    x, axis = op.tensor(0), op.attribute("axis", 1)
    if axis == 1 and (op.rank(0) or 0) >= 2:
        return op.call(torch.flatten, x, 1)
    return op.call(flatten_to_matrix, x, axis)


@implements("Squeeze")
def squeeze(op: Operation) -> Value:
    axes = op.axes(1)
    return op.call(torch.squeeze, op.tensor(0)) if axes is None else op.call(torch.squeeze, op.tensor(0), axes)


@implements("Unsqueeze")
def unsqueeze(op: Operation) -> Value:
    axes = op.axes(1) or ()
    if len(axes) == 1:
        return op.call(torch.unsqueeze, op.tensor(0), axes[0])
    return op.call(unsqueeze_all, op.tensor(0), axes)


@implements("Transpose")
def transpose(op: Operation) -> Value:
    permutation = op.attribute("perm")
    return (
        op.call(reverse_dimensions, op.tensor(0))
        if permutation is None
        else op.call(torch.permute, op.tensor(0), permutation)
    )


@implements("Concat")
def concat(op: Operation) -> Value:
    tensors = tuple(op.tensor(i) for i in range(len(op.inputs)))
    return tensors[0] if len(tensors) == 1 else op.call(torch.cat, tensors, op.attribute("axis", 1))


@implements("Split")
def split(op: Operation) -> Result:
    """Sizes are an attribute up to opset 12 and an input later; without them the parts are equal (the last smaller)."""
    x, axis, count = op.tensor(0), op.attribute("axis", 0), len(op.proto.output)
    sizes = op.attribute("split") if op.attribute("split") is not None else op.integers(1) if op.has(1) else None
    if sizes is None:
        return op.unpack(op.call(split_evenly, x, op.attribute("num_outputs", count), axis), count)
    return op.unpack(op.call(torch.split, x, sizes, axis), count)


@implements("Slice")
def slice_(op: Operation) -> Value:
    """Bounds are attributes up to opset 9, inputs later."""
    x = op.tensor(0)
    bounds: tuple[Argument, ...]
    if op.opset < 10:
        bounds = op.attribute("starts"), op.attribute("ends"), op.attribute("axes"), None
    else:
        bounds = tuple(op.integers(i) if op.has(i) else None for i in range(1, 5))
    starts, ends, axes, steps = bounds
    if isinstance(starts, tuple) and isinstance(ends, tuple):
        axes = tuple(range(len(starts))) if axes is None else axes
        steps = (1,) * len(starts) if steps is None else steps
        if isinstance(axes, tuple) and isinstance(steps, tuple) and min((*axes, *steps)) >= 0:
            index = {a: slice(*bound) for a, *bound in zip(axes, starts, ends, steps, strict=True)}
            return op.call(operator.getitem, x, tuple(index.get(a, slice(None)) for a in range(max(index) + 1)))
    return op.call(slice_along, x, starts, ends, axes, steps)


@implements("Gather")
def gather(op: Operation) -> Value:
    axis, known = op.attribute("axis", 0), op.known(1)
    if known is not None and known.ndim == 0:
        return op.call(torch.select, op.tensor(0), axis, int(known))
    if known is not None and known.ndim == 1:
        run = _as_slice(known)
        if run is not None:
            return op.call(slice_along, op.tensor(0), (run[0],), (run[1],), (axis,), (1,))
        if int(known.min()) >= 0:
            return op.call(torch.index_select, op.tensor(0), axis, known)
    index = op.given(1)
    if isinstance(index, fx.Node) and index.meta.get(PYTHON_RANK) == 0:
        return op.call(torch.select, op.tensor(0), axis, index)
    return op.call(gather_slices, op.tensor(0), op.tensor(1), axis)


@implements("GatherElements")
def gather_elements(op: Operation) -> Value:
    return op.call(gather_single, op.tensor(0), op.tensor(1), op.attribute("axis", 0))


@implements("GatherND")
def gather_nd(op: Operation) -> Value:
    return op.call(gather_tuples, op.tensor(0), op.tensor(1), op.attribute("batch_dims", 0))


@implements("ScatterElements", "Scatter")
def scatter_elements(op: Operation) -> Value:
    axis, reduction = op.attribute("axis", 0), op.attribute("reduction", "none")
    return op.call(scatter_single, op.tensor(0), op.tensor(1), op.tensor(2), axis, reduction)


@implements("ScatterND")
def scatter_nd(op: Operation) -> Value:
    return op.call(scatter_tuples, op.tensor(0), op.tensor(1), op.tensor(2), op.attribute("reduction", "none"))


@implements("Compress")
def compress(op: Operation) -> Value:
    return op.call(pick_where, op.tensor(0), op.tensor(1), op.attribute("axis"))


@implements("Col2Im")
def col2im(op: Operation) -> Value:
    """Columns of overlapping blocks back to an image, for two spatial dimensions."""
    image, block = op.integers(1), op.integers(2)
    pads = op.attribute("pads", (0, 0, 0, 0))
    if len(pads) != 4 or pads[:2] != pads[2:]:
        raise op.unsupported("other than two spatial dimensions, or asymmetric pads")
    dilations, strides = op.attribute("dilations", (1, 1)), op.attribute("strides", (1, 1))
    return op.call(F.fold, op.tensor(0), image, block, dilations, pads[:2], strides)


@implements("Expand")
def expand(op: Operation) -> Value:
    return op.call(expand_to, op.tensor(0), op.integers(1))


@implements("Tile")
def tile(op: Operation) -> Value:
    return op.call(torch.tile, op.tensor(0), op.integers(1))


@implements("Pad")
def pad(op: Operation) -> Value:
    """Pads are an attribute up to opset 10, an input later; `axes` came with opset 18."""
    mode = op.attribute("mode", "constant")
    pads = op.attribute("pads") if op.opset < 11 else op.integers(1)
    value: Any = op.attribute("value", 0.0) if op.opset < 11 else op.scalar(2, 0)
    axes = op.integers(3) if op.has(3) else None
    rank = op.rank(0)
    if axes is None and mode == "constant" and isinstance(pads, tuple) and len(pads) == 2 * (rank or 0):
        return op.call(F.pad, op.tensor(0), _without_trailing_zeros(torch_pads(pads[:rank], pads[rank:])), value=value)
    return op.call(pad_axes, op.tensor(0), pads, axes, mode, value)


@implements("ConstantOfShape")
def constant_of_shape(op: Operation) -> Value:
    value = op.attribute("value")
    filler = torch.zeros(1) if value is None else known_tensor(numpy_helper.to_array(value))
    return op.call(filled, op.integers(0), filler.item(), filler.dtype, op.anchor_unless_known(0))


@implements("Range")
def range_(op: Operation) -> Value:
    dtype = TORCH_DTYPES.get(op.input_types[0].elem_type or 0)
    start, limit, delta = (op.number(i) for i in range(3))
    return op.call(arange, start, limit, delta, dtype, op.anchor_unless_known(0, 1, 2))


@implements("EyeLike")
def eye_like(op: Operation) -> Value:
    dtype = TORCH_DTYPES.get(op.attribute("dtype", 0))
    return op.call(eye, op.tensor(0), op.attribute("k", 0), dtype)


@implements("DepthToSpace")
def depth_to_space(op: Operation) -> Value:
    block, mode = op.attribute("blocksize"), op.attribute("mode", "DCR")
    if mode == "CRD":
        return op.call(F.pixel_shuffle, op.tensor(0), block)
    return op.call(depth_first_shuffle, op.tensor(0), block)


@implements("SpaceToDepth")
def space_to_depth(op: Operation) -> Value:
    return op.call(depth_first_unshuffle, op.tensor(0), op.attribute("blocksize"))


@implements("Trilu")
def trilu(op: Operation) -> Value:
    return op.call(torch.triu if op.attribute("upper", 1) else torch.tril, op.tensor(0), int(op.scalar(1, 0)))


@implements("ReverseSequence")
def reverse_sequence(op: Operation) -> Value:
    axes = op.attribute("time_axis", 0), op.attribute("batch_axis", 1)
    return op.call(reverse_each, op.tensor(0), op.tensor(1), *axes)


@implements("CenterCropPad")
def center_crop_pad(op: Operation) -> Value:
    return op.call(centred, op.tensor(0), op.integers(1), op.attribute("axes"))


def shape_of(x: torch.Tensor, start: int, end: int | None) -> tuple[int, ...]:
    return tuple(x.shape)[start:end]


def size_of(x: torch.Tensor) -> int:
    return x.numel()


def reshape_to(x: torch.Tensor, shape: tuple[int, ...], zero_copies: bool) -> torch.Tensor:
    """Reshape where a 0 stands for the input's own size at that place."""
    if zero_copies:
        shape = tuple(x.shape[i] if s == 0 else s for i, s in enumerate(shape))
    return x.reshape(shape)


def flatten_to_matrix(x: torch.Tensor, axis: int) -> torch.Tensor:
    axis = axis if axis >= 0 else axis + x.dim()
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def unsqueeze_all(x: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
    rank = x.dim() + len(axes)
    for axis in sorted(a % rank for a in axes):
        x = x.unsqueeze(axis)
    return x


def reverse_dimensions(x: torch.Tensor) -> torch.Tensor:
    return x.permute(tuple(reversed(range(x.dim()))))


def split_evenly(x: torch.Tensor, count: int, axis: int) -> tuple[torch.Tensor, ...]:
    return torch.split(x, -(-x.shape[axis] // count), axis)


def slice_along(
    x: torch.Tensor,
    starts: tuple[int, ...],
    ends: tuple[int, ...],
    axes: tuple[int, ...] | None,
    steps: tuple[int, ...] | None,
) -> torch.Tensor:
    """Slices with steps of either sign; torch has no negative ones, so these become an index."""
    axes = tuple(range(len(starts))) if axes is None else axes
    for axis, start, end, step in zip(axes, starts, ends, steps or (1,) * len(starts), strict=True):
        if step > 0:
            size = x.shape[axis]
            start = max(start + size, 0) if start < 0 else start
            end = max(end + size, 0) if end < 0 else min(end, size)
            x = x[(slice(None),) * (axis % x.dim()) + (slice(start, end, step),)]
        else:
            index = torch.arange(x.shape[axis], device=x.device).tolist()[slice(start, _open_end(end, x, axis), step)]
            x = x.index_select(axis, torch.tensor(index, dtype=torch.int64, device=x.device))
    return x


def gather_slices(x: torch.Tensor, index: torch.Tensor, axis: int) -> torch.Tensor:
    """Whole slices of `axis` by an index of any rank; negative entries count from the end."""
    axis = axis % x.dim()
    flat = index.reshape(-1).long()
    picked = x.index_select(axis, torch.where(flat < 0, flat + x.shape[axis], flat))
    return picked.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def gather_single(x: torch.Tensor, index: torch.Tensor, axis: int) -> torch.Tensor:
    return x.gather(axis, torch.where(index < 0, index + x.shape[axis], index).long())


def gather_tuples(x: torch.Tensor, index: torch.Tensor, batch_dims: int) -> torch.Tensor:
    """Each last row of `index` addresses one element or slice; the first `batch_dims` dimensions go in step."""
    batch, depth = x.shape[:batch_dims], index.shape[-1]
    flat_x = x.reshape(-1, *x.shape[batch_dims:])
    flat_index = index.reshape(flat_x.shape[0], -1, depth)
    rows = torch.arange(flat_x.shape[0], device=x.device).unsqueeze(1)
    picked = flat_x[(rows, *flat_index.long().unbind(-1))]
    return picked.reshape(*batch, *index.shape[batch_dims:-1], *x.shape[batch_dims + depth :])


def scatter_single(
    x: torch.Tensor, index: torch.Tensor, updates: torch.Tensor, axis: int, reduction: str
) -> torch.Tensor:
    index = torch.where(index < 0, index + x.shape[axis], index).long()
    if reduction == "none":
        return x.scatter(axis, index, updates)
    return x.scatter_reduce(axis, index, updates, _TORCH_REDUCTIONS[reduction])


def scatter_tuples(x: torch.Tensor, index: torch.Tensor, updates: torch.Tensor, reduction: str) -> torch.Tensor:
    """Write slices at the places that the last rows of `index` address."""
    depth = index.shape[-1]
    sizes = x.shape[:depth]
    flat = torch.zeros(index.shape[:-1], dtype=torch.int64, device=x.device)
    for size, part in zip(sizes, index.long().unbind(-1), strict=True):
        flat = flat * size + torch.where(part < 0, part + size, part)
    rows = x.reshape(math.prod(sizes), -1)
    new = updates.reshape(flat.numel(), -1)
    where = flat.reshape(-1, 1).expand_as(new)
    if reduction == "none":
        return rows.scatter(0, where, new).reshape(x.shape)
    return rows.scatter_reduce(0, where, new, _TORCH_REDUCTIONS[reduction]).reshape(x.shape)


def pick_where(x: torch.Tensor, condition: torch.Tensor, axis: int | None) -> torch.Tensor:
    """Slices of `axis` (or elements of the flattened tensor) where the condition holds; it may be shorter."""
    index = condition.nonzero().squeeze(1)
    return x.reshape(-1).index_select(0, index) if axis is None else x.index_select(axis, index)


def expand_to(x: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, shape))  # type: ignore[no-untyped-call]


def pad_axes(
    x: torch.Tensor, pads: tuple[int, ...], axes: tuple[int, ...] | None, mode: str, value: float
) -> torch.Tensor:
    """Pad (or, by negative pads, crop) the given axes, one at a time where torch has no mode for all at once."""
    axes = tuple(range(x.dim())) if axes is None else tuple(a % x.dim() for a in axes)
    before, after = dict(zip(axes, pads, strict=False)), dict(zip(axes, pads[len(axes) :], strict=True))
    order = range(x.dim())
    if mode == "constant":
        both = tuple(before.get(a, 0) for a in order), tuple(after.get(a, 0) for a in order)
        return F.pad(x, torch_pads(*both), value=value)
    for axis in axes:
        if before[axis] or after[axis]:
            moved = x.movedim(axis, -1)
            index = _padded_index(x.shape[axis], before[axis], after[axis], mode)
            x = moved[..., torch.tensor(index, device=x.device)].movedim(-1, axis)
    return x


def filled(shape: tuple[int, ...], value: float, dtype: torch.dtype, beside: torch.Tensor | None) -> torch.Tensor:
    return torch.full(shape, value, dtype=dtype, device=None if beside is None else beside.device)


def arange(
    start: float, limit: float, delta: float, dtype: torch.dtype | None, beside: torch.Tensor | None
) -> torch.Tensor:
    """Empty where torch would refuse: a range that runs away from its limit."""
    if (limit - start) * delta <= 0:
        limit = start
    return torch.arange(start, limit, delta, dtype=dtype, device=None if beside is None else beside.device)


def eye(x: torch.Tensor, diagonal: int, dtype: torch.dtype | None) -> torch.Tensor:
    return torch.ones_like(x, dtype=dtype).tril(diagonal).triu(diagonal)


def depth_first_shuffle(x: torch.Tensor, block: int) -> torch.Tensor:
    n, c, h, w = x.shape
    x = x.reshape(n, block, block, c // block**2, h, w)
    return x.permute(0, 3, 4, 1, 5, 2).reshape(n, c // block**2, h * block, w * block)


def depth_first_unshuffle(x: torch.Tensor, block: int) -> torch.Tensor:
    n, c, h, w = x.shape
    x = x.reshape(n, c, h // block, block, w // block, block)
    return x.permute(0, 3, 5, 1, 2, 4).reshape(n, c * block**2, h // block, w // block)


def reverse_each(x: torch.Tensor, lengths: torch.Tensor, time_axis: int, batch_axis: int) -> torch.Tensor:
    """Reverse the first `lengths[b]` steps of each sequence."""
    steps = x.shape[time_axis]
    time = torch.arange(steps, device=x.device)
    index = torch.where(time < lengths.unsqueeze(1), lengths.unsqueeze(1) - 1 - time, time)  # (B, T)
    moved = x.movedim((batch_axis, time_axis), (0, 1))
    picked = moved[torch.arange(moved.shape[0], device=x.device).unsqueeze(1), index]
    return picked.movedim((0, 1), (batch_axis, time_axis))


def centred(x: torch.Tensor, shape: tuple[int, ...], axes: tuple[int, ...] | None) -> torch.Tensor:
    before, after = [0] * x.dim(), [0] * x.dim()
    for axis, wanted in zip(range(x.dim()) if axes is None else axes, shape, strict=True):
        missing = wanted - x.shape[axis]
        before[axis] = missing // 2 if missing >= 0 else -(-missing // 2)
        after[axis] = missing - before[axis]
    return F.pad(x, torch_pads(tuple(before), tuple(after)))


def _as_slice(index: torch.Tensor) -> tuple[int, int] | None:
    """The bounds of an index that picks consecutive elements."""
    first, count = int(index[0]) if len(index) else 0, len(index)
    consecutive = count > 0 and first >= 0 and torch.equal(index, torch.arange(first, first + count))
    return (first, first + count) if consecutive else None


def _open_end(end: int, x: torch.Tensor, axis: int) -> int | None:
    """Where a backward slice stops: anything before the first element means that it is included."""
    return None if end < -x.shape[axis] else end


def _padded_index(size: int, before: int, after: int, mode: str) -> list[int]:
    positions = range(-before, size + after)
    if mode == "edge":
        return [min(max(p, 0), size - 1) for p in positions]
    if mode == "wrap":
        return [p % size for p in positions]
    period = max(2 * (size - 1), 1)
    return [min(p % period, period - p % period) if size > 1 else 0 for p in positions]


def _without_trailing_zeros(pads: tuple[int, ...]) -> tuple[int, ...]:
    """The shortest equal pads, which take torch's faster paths: outer dimensions without pads are left out."""
    while len(pads) > 2 and pads[-2:] == (0, 0):
        pads = pads[:-2]
    return pads
