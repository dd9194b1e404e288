"""Resize, Upsample, and sampling at computed places.

ONNX has many coordinate conventions. Those that torch shares run as `F.interpolate`; every other one runs axis by axis
with an explicit index (nearest) or interpolation matrix (linear, cubic), which is exact for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from worker.engine.torch_form.operation import Operation, Value
from worker.engine.torch_form.registry import implements

_TORCH_LINEAR = {3: "linear", 4: "bilinear", 5: "trilinear"}


@implements("Resize")
def resize(op: Operation) -> Value:
    """Inputs are (X, scales) in opset 10, (X, roi, scales, sizes) later."""
    x = op.tensor(0)
    mode = op.attribute("mode", "nearest")
    resampling = _resampling(op, mode)
    if op.opset < 11:
        return op.call(resampling, x, None, op.numbers(1), None, mode, "asymmetric", "outer")
    scales, sizes = _numbers_unless_empty(op, 2), op.integers(3) if op.has(3) else None
    coordinates = op.attribute("coordinate_transformation_mode", "half_pixel")
    roi = op.numbers(1) if coordinates == "tf_crop_and_resize" else None
    return op.call(
        resampling,
        x,
        sizes,
        None if sizes is not None else scales,
        op.attribute("axes"),
        mode,
        coordinates,
        op.attribute("nearest_mode", "round_prefer_floor"),
        cubic=op.attribute("cubic_coeff_a", -0.75),
        exclude_outside=bool(op.attribute("exclude_outside", 0)),
        antialias=bool(op.attribute("antialias", 0)),
        policy=op.attribute("keep_aspect_ratio_policy", "stretch"),
        roi=roi,
        outside=op.attribute("extrapolation_value", 0.0),
    )


@implements("Upsample")
def upsample(op: Operation) -> Value:
    """Scales are an attribute up to opset 8, an input in 9; the op ends there."""
    scales = op.attribute("scales") if op.opset < 9 else op.numbers(1)
    mode = op.attribute("mode", "nearest")
    return op.call(_resampling(op, mode), op.tensor(0), None, scales, None, mode, "asymmetric", "outer")


def _resampling(op: Operation, mode: str) -> Callable[..., torch.Tensor]:
    return resample_levels if op.is_float(0) is False and mode != "nearest" else resample


@implements("GridSample")
def grid_sample(op: Operation) -> Value:
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(
        op.attribute("mode", "bilinear"), op.attribute("mode", "bilinear")
    )
    padding, aligned = op.attribute("padding_mode", "zeros"), bool(op.attribute("align_corners", 0))
    return op.call(F.grid_sample, op.tensor(0), op.tensor(1), mode, padding, aligned)


@implements("AffineGrid")
def affine_grid(op: Operation) -> Value:
    return op.call(F.affine_grid, op.tensor(0), op.integers(1), bool(op.attribute("align_corners", 0)))


def resample(
    x: torch.Tensor,
    sizes: tuple[int, ...] | None,
    scales: tuple[float, ...] | None,
    axes: tuple[int, ...] | None,
    mode: str,
    coordinates: str,
    nearest: str,
    cubic: float = -0.75,
    exclude_outside: bool = False,
    antialias: bool = False,
    policy: str = "stretch",
    roi: tuple[float, ...] | None = None,
    outside: float = 0.0,
) -> torch.Tensor:
    """ONNX Resize to `sizes`, or by `scales`, of `axes` (all, where None)."""
    axes = tuple(range(x.dim())) if axes is None else tuple(a % x.dim() for a in axes)
    inputs = tuple(x.shape[a] for a in axes)
    if sizes is not None:
        sizes, scales = _sizes_and_scales(inputs, sizes, policy)
    else:
        scales = scales or (1.0,) * len(axes)
        sizes = tuple(math.floor(i * s) for i, s in zip(inputs, scales, strict=True))
    if roi is None:
        changes = {a: (n, s) for a, i, n, s in zip(axes, inputs, sizes, scales, strict=True) if n != i or s != 1}
        if _torch_agrees(x, changes, mode, coordinates, nearest, cubic, exclude_outside, antialias):
            target = tuple(changes.get(a, (x.shape[a],))[0] for a in range(2, x.dim()))
            return _interpolate(x, target, mode, coordinates, antialias) if changes else x
    for at, (axis, size, scale) in enumerate(zip(axes, sizes, scales, strict=True)):
        if size == x.shape[axis] and scale == 1 and roi is None:
            continue
        window = None if roi is None else (roi[at], roi[at + len(axes)])
        places = _places(x.shape[axis], size, scale, coordinates, window, x.device)
        if mode == "nearest":
            x = x.index_select(axis, _nearest(places, nearest, scale).clamp(0, x.shape[axis] - 1))
        else:
            stretch = max(1.0, 1 / scale) if antialias else 1.0
            taps = _matrix(places, x.shape[axis], mode, cubic, exclude_outside, stretch)
            x = (x.movedim(axis, -1) @ taps.to(x.dtype).t()).movedim(-1, axis)
        if window is not None:
            outer = (places < 0) | (places > inputs[at] - 1)
            x = torch.where(outer.reshape(-1, *(1,) * (x.dim() - 1 - axis)), outside, x)
    return x


def resample_levels(x: torch.Tensor, *how: Any, **further: Any) -> torch.Tensor:  # noqa: ANN401  (as of `resample`)
    """`resample` for integers, which may be held as floating-point numbers: interpolated between, and cut to integers
    towards zero, as ONNX Runtime does. Gradients pass as if nothing were cut off."""
    exact = resample(x if x.is_floating_point() else x.float(), *how, **further)
    return (exact + (exact.trunc() - exact).detach()).to(x.dtype)


def _sizes_and_scales(
    inputs: tuple[int, ...], sizes: tuple[int, ...], policy: str
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Wanted sizes; with an aspect ratio to keep, one scale for all axes and the sizes that follow from it."""
    scales = tuple(n / i for n, i in zip(sizes, inputs, strict=True))
    if policy == "stretch":
        return sizes, scales
    scale = min(scales) if policy == "not_larger" else max(scales)
    return tuple(math.floor(i * scale + 0.5) for i in inputs), (scale,) * len(inputs)


def _torch_agrees(
    x: torch.Tensor,
    changes: dict[int, tuple[int, float]],
    mode: str,
    coordinates: str,
    nearest: str,
    cubic: float,
    exclude_outside: bool,
    antialias: bool,
) -> bool:
    """Whether `F.interpolate` computes the same."""
    if antialias or not 3 <= x.dim() <= 5 or any(axis < 2 for axis in changes) or not x.is_floating_point():
        return False
    exact = all(size == x.shape[axis] * scale for axis, (size, scale) in changes.items())
    if mode == "nearest":
        upscales = exact and all(scale == int(scale) for _, scale in changes.values())
        same = (coordinates == "asymmetric" and nearest in {"floor", "outer"}) or (
            coordinates in {"half_pixel", "pytorch_half_pixel"} and nearest.startswith("round")
        )
        return upscales and same and all(size > 1 for size, _ in changes.values())
    if mode == "cubic" and (x.dim() != 4 or cubic != -0.75 or exclude_outside):
        return False
    halves = coordinates == "half_pixel" or (
        coordinates == "pytorch_half_pixel" and all(size > 1 for size, _ in changes.values())
    )
    return coordinates == "align_corners" or (halves and exact)


def _interpolate(
    x: torch.Tensor, target: tuple[int, ...], mode: str, coordinates: str, antialias: bool
) -> torch.Tensor:
    if mode == "nearest":
        return F.interpolate(x, target, mode="nearest")
    name = "bicubic" if mode == "cubic" else _TORCH_LINEAR[x.dim()]
    return F.interpolate(x, target, mode=name, align_corners=coordinates == "align_corners", antialias=antialias)


def _places(
    size: int,
    new_size: int,
    scale: float,
    coordinates: str,
    window: tuple[float, float] | None,
    device: torch.device,
) -> torch.Tensor:
    """Where in the input each output element lies, (new_size,)."""
    i = torch.arange(new_size, dtype=torch.float32, device=device)
    if coordinates == "align_corners":
        return i * (size - 1) / (new_size - 1) if new_size > 1 else torch.zeros_like(i)
    if coordinates == "asymmetric":
        return i / scale
    if coordinates == "tf_half_pixel_for_nn":
        return (i + 0.5) / scale
    if coordinates == "pytorch_half_pixel" and new_size == 1:
        return torch.zeros_like(i)
    if coordinates == "half_pixel_symmetric":
        adjustment = new_size / (scale * size)
        return size / 2 * (1 - adjustment) + (i + 0.5) / scale - 0.5
    if window is not None:
        start, end = window
        if new_size == 1:
            return torch.full_like(i, 0.5 * (start + end) * (size - 1))
        return start * (size - 1) + i * (end - start) * (size - 1) / (new_size - 1)
    return (i + 0.5) / scale - 0.5


def _nearest(places: torch.Tensor, mode: str, scale: float) -> torch.Tensor:
    """`outer` is how ONNX Runtime reads opsets up to 10, which leave it open: floor to enlarge, ceil to reduce."""
    if mode == "floor" or (mode == "outer" and scale >= 1):
        return places.floor().long()
    if mode in {"ceil", "outer"}:
        return places.ceil().long()
    return ((places - 0.5).ceil() if mode == "round_prefer_floor" else (places + 0.5).floor()).long()


def _matrix(
    places: torch.Tensor, size: int, mode: str, cubic: float, exclude_outside: bool, stretch: float
) -> torch.Tensor:
    """The weights of all input elements for each output element, (new_size, size). `stretch` > 1 widens the kernel for
    antialiasing; taps outside the input go to its edge, or with `exclude_outside` to the other taps."""
    reach = math.ceil((2 if mode == "cubic" else 1) * stretch)
    offsets = torch.arange(-reach, reach + 2, device=places.device)
    taps = places.floor().unsqueeze(1).long() + offsets  # (new_size, taps)
    distance = ((taps - places.unsqueeze(1)) / stretch).abs()
    weights = _cubic_kernel(distance, cubic) if mode == "cubic" else (1 - distance).clamp_min(0)
    if exclude_outside:
        weights = torch.where((taps >= 0) & (taps < size), weights, 0.0)
    if exclude_outside or stretch > 1:
        weights = weights / weights.sum(1, keepdim=True)
    return weights.new_zeros(len(places), size).scatter_add(1, taps.clamp(0, size - 1), weights)


def _cubic_kernel(d: torch.Tensor, a: float) -> torch.Tensor:
    """Keys' cubic convolution kernel for distances d >= 0."""
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d <= 1, near, torch.where(d < 2, far, 0.0))


def _numbers_unless_empty(op: Operation, index: int) -> Value | tuple[float, ...] | None:
    """Scales, which exporters write as an empty tensor where sizes are given."""
    if not op.has(index):
        return None
    numbers = op.numbers(index)
    return numbers if numbers != () else None
