"""The layers of a torch form whose weights a regression can set, and what stands between them and their target."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx

from worker.engine.recovery.walk import member
from worker.engine.torch_form import TorchForm

MAX_PATCH_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Norm:
    """A BatchNormalization in evaluation mode, and the get_attr nodes of its four vectors."""

    node: fx.Node
    mean: fx.Node
    variance: fx.Node
    scale: fx.Node
    bias: fx.Node
    epsilon: float


@dataclass(frozen=True)
class Site:
    """A layer y = W x + b with weights of its own, perhaps with a norm behind it, perhaps added to another branch."""

    node: fx.Node
    x: fx.Node
    weight: fx.Node
    transposed: bool
    """Whether the weights are stored as (inputs, outputs, ...), as in MatMul, Gemm without transB and ConvTranspose."""
    bias: fx.Node | None
    biased: fx.Node
    """The layer itself, or the Add that gives it its bias."""
    norm: Norm | None
    total: fx.Node | None
    """The Add behind the layer and its norm, of another branch."""
    branch: fx.Node | None
    """The other operand of that Add."""

    @property
    def end(self) -> fx.Node:
        """The last node of layer, bias and norm."""
        return self.norm.node if self.norm is not None else self.biased

    @property
    def groups(self) -> int:
        """Regressions that stand side by side."""
        return int(_arguments(self.node)[8]) if self._is_convolution else 1

    @property
    def _is_convolution(self) -> bool:
        return self.node.target is torch.convolution

    def matrix(self, module: fx.GraphModule) -> torch.Tensor:
        """The weights as (groups, inputs, outputs of a group), float64."""
        weight: torch.Tensor = member(module, self.weight).detach().double()
        if not self._is_convolution:
            return (weight if self.transposed else weight.mT)[None]
        split = weight.reshape(self.groups, weight.shape[0] // self.groups, *weight.shape[1:])
        return split.flatten(3).mT.flatten(1, 2) if self.transposed else split.flatten(2).mT

    def store(self, module: fx.GraphModule, matrix: torch.Tensor) -> None:
        """Put the inverse of `matrix` into the module."""
        weight = member(module, self.weight)
        if self._is_convolution and self.transposed:  # (groups, inputs x taps, outputs)
            values = matrix.reshape(weight.shape[0], -1, weight.shape[1]).mT
        elif self._is_convolution:
            values = matrix.mT
        else:
            values = matrix[0] if self.transposed else matrix[0].mT
        overwrite(weight, values)

    def rows(self, x: torch.Tensor, y: torch.Tensor, limit: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The regression's rows for a batch of inputs and targets, about `limit` of them, the same output positions of
        every image: pairs of (groups, rows, inputs) and (groups, rows, outputs of a group)."""
        if not self._is_convolution:
            yield x.reshape(1, -1, x.shape[-1]), y.reshape(1, -1, y.shape[-1])
            return
        positions = y[0, 0].numel()
        taken = min(positions, max(1, limit // len(x)))
        chosen = torch.randperm(positions, generator=torch.Generator().manual_seed(positions))[:taken]
        # numpy's: torch's loads sympy for it.
        axes = np.unravel_index(chosen.numpy(), tuple(y.shape[2:]))
        place: tuple[Any, ...] = tuple(torch.tensor(axis) for axis in axes)
        step = max(1, MAX_PATCH_BYTES // (4 * taken * x.shape[1] * math.prod(self._kernel)))
        for start in range(0, len(x), step):
            patches = self._patches(x[start : start + step], place)  # (images, channels, taken, *kernel)
            patches = patches.movedim(2, 1).flatten(2)  # (images, taken, channels * kernel)
            targets = y[start : start + step][:, :, *place].mT  # (images, taken, outputs)
            yield _grouped(patches, self.groups), _grouped(targets, self.groups)

    @property
    def _kernel(self) -> tuple[int, ...]:
        return tuple(member(self.node.graph.owning_module, self.weight).shape[2:])  # type: ignore[arg-type]

    def _patches(self, x: torch.Tensor, place: tuple[Any, ...]) -> torch.Tensor:
        """The inputs of the outputs at these places, one tensor of coordinates per axis: (images, channels, places,
        *kernel)."""
        return self._transposed_patches(x, place) if self.transposed else self._windows(x)[:, :, *place]

    def _windows(self, x: torch.Tensor) -> torch.Tensor:
        """Those of every output position, as a view: (images, channels, *out, *kernel), nothing copied but the pads."""
        _, _, _, strides, pads, dilations, *_ = _arguments(self.node)
        x = F.pad(x, [p for pad in reversed(pads) for p in (pad, pad)])
        for axis, (size, stride, dilation) in enumerate(zip(self._kernel, strides, dilations, strict=True), start=2):
            x = x.unfold(axis, (size - 1) * dilation + 1, stride)[..., ::dilation]
        return x

    def _transposed_patches(self, x: torch.Tensor, place: tuple[Any, ...]) -> torch.Tensor:
        """Those of a transposed convolution: a tap adds input i to output i * stride + tap * dilation - pad, so an
        output reads by a tap the one input that it leads back to, or, where it leads between two or beyond, none."""
        _, _, _, strides, pads, dilations, *_ = _arguments(self.node)
        sources, read = [], torch.ones((), dtype=torch.bool)
        for axis, (size, stride, pad, dilation) in enumerate(zip(self._kernel, strides, pads, dilations, strict=True)):
            back = place[axis][:, None] + pad - dilation * torch.arange(size)  # (places, taps)
            source = back.div(stride, rounding_mode="floor")
            there = (back % stride == 0) & (source >= 0) & (source < x.shape[2 + axis])
            shape = [len(back), *(size if other == axis else 1 for other in range(len(place)))]
            sources.append(source.clamp(0, x.shape[2 + axis] - 1).reshape(shape))
            read = read & there.reshape(shape)
        return x[:, :, *sources].masked_fill(~read, 0)


def _grouped(rows: torch.Tensor, groups: int) -> torch.Tensor:
    """(images, taken, features) -> (groups, images * taken, features of a group)."""
    return rows.reshape(rows.shape[0] * rows.shape[1], groups, -1).movedim(1, 0)


def find_sites(form: TorchForm) -> dict[fx.Node, Site]:
    """The sites of a form by their layers' nodes. Layers that share their weights, or compute them, are none."""
    found: dict[fx.Node, Site] = {}
    for node in form.module.graph.nodes:
        layer = _layer(form, node)
        if layer is None:
            continue
        weight, transposed, bias = layer
        biased = node
        if bias is None:
            stored = member(form.module, weight).shape
            groups = _arguments(node)[8] if node.target is torch.convolution else 1
            outputs = stored[1] * groups if transposed else stored[0]
            biased, bias = _added_bias(form, node, (outputs, *[1] * (len(stored) - 2)))
        norm = _norm(form, biased)
        total, branch = _sum(norm.node if norm is not None else biased)
        found[node] = Site(node, _arguments(node)[0], weight, transposed, bias, biased, norm, total, branch)
    return found


def _layer(form: TorchForm, node: fx.Node) -> tuple[fx.Node, bool, fx.Node | None] | None:
    """(weight, transposed, bias) of a node that multiplies an activation with weights of its own."""
    arguments = _arguments(node)
    if node.target is torch.convolution:
        weight, transposed, bias = arguments[1], bool(arguments[6]), arguments[2]
    elif node.target is F.linear:
        weight, transposed, bias = arguments[1], False, arguments[2] if len(arguments) > 2 else None
        if isinstance(weight, fx.Node) and weight.target is torch.t and len(weight.users) == 1:
            weight, transposed = _arguments(weight)[0], True
    elif node.target is torch.matmul:
        weight, transposed, bias = arguments[1], True, None
        if isinstance(weight, fx.Node) and weight.target is torch.permute and len(weight.users) == 1:
            weight, transposed = _arguments(weight)[0], False
    else:
        return None
    if not isinstance(arguments[0], fx.Node) or arguments[0].op == "get_attr" or not _is_own(form, weight):
        return None
    if node.target is torch.matmul and member(form.module, weight).ndim != 2:
        return None
    if bias is not None and not _is_own(form, bias):
        return None
    return weight, transposed, bias


def _added_bias(form: TorchForm, layer: fx.Node, shape: tuple[int, ...]) -> tuple[fx.Node, fx.Node | None]:
    """The Add that alone reads a layer and gives each of its outputs a number of its own, and those numbers; the layer
    and None where there is none. `shape` is theirs where they meet one sample: exporters that do not know a layer's
    bias (CNTK, Paddle) store them so, or reshape them."""
    reader = _only_reader(layer)
    if reader is not None and reader.target is operator.add:
        (added,) = [a for a in _arguments(reader) if a is not layer] or [None]
        reshaped = isinstance(added, fx.Node) and added.target is torch.reshape and len(added.users) == 1
        bias = _arguments(added)[0] if reshaped else added
        if _is_own(form, bias):
            stored = member(form.module, bias)
            if (stored.reshape(_arguments(added)[1]) if reshaped else stored).shape in (shape, (1, *shape)):
                return reader, bias
    return layer, None


def _norm(form: TorchForm, layer: fx.Node) -> Norm | None:
    """The norm that alone reads the layer and has all its vectors to itself."""
    reader = _only_reader(layer)
    if reader is None or reader.target is not F.batch_norm:
        return None
    x, mean, variance, scale, bias, training, _, epsilon = _arguments(reader)
    if x is not layer or training is False:  # statistics that are no buffers of its own
        return None
    if not (_is_own(form, scale) and _is_own(form, bias)):
        return None
    return Norm(reader, mean, variance, scale, bias, float(epsilon))


def _sum(end: fx.Node) -> tuple[fx.Node | None, fx.Node | None]:
    """The Add that alone reads a layer's end, and its other operand."""
    reader = _only_reader(end)
    if reader is None or reader.target is not operator.add:
        return None, None
    (other,) = [a for a in _arguments(reader) if a is not end] or [None]
    if not isinstance(other, fx.Node) or other.op == "get_attr":
        return None, None
    return reader, other


def _only_reader(node: fx.Node) -> fx.Node | None:
    readers = list(node.users)
    return readers[0] if len(readers) == 1 else None


def _is_own(form: TorchForm, node: Any) -> bool:  # noqa: ANN401  (any argument of a call)
    """Whether a node reads a trainable tensor that nothing else reads."""
    return (
        isinstance(node, fx.Node)
        and node.op == "get_attr"
        and len(node.users) == 1
        and str(node.target) in form.parameters.values()
    )


def _arguments(node: fx.Node) -> tuple[Any, ...]:
    return node.args


def overwrite(target: torch.Tensor, values: torch.Tensor) -> None:
    with torch.no_grad():
        target.copy_(values.to(target.dtype).reshape(target.shape))
