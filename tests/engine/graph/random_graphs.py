"""Random small networks, composed block by block from the ops that have rules.

A network grows from its inputs: each block takes a value that exists and makes a new one. Blocks are registered per
layout of the value they take: images (N, C, H, W), tokens (N, T, C) or vectors (N, C). Sizes stay tiny and
values stay around one, so that a graph analyses, cuts and runs within milliseconds.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.engine.graph.graph_builder import GraphBuilder

Choose = Callable[[int, int], int]
"""(lowest, highest) -> an integer between them, both included."""

MAX_CHANNELS, MAX_ELEMENTS = 24, 6000


@dataclass(frozen=True)
class Value:
    name: str
    shape: tuple[int, ...]

    @property
    def layout(self) -> str:
        return {4: "image", 3: "tokens", 2: "vector"}[len(self.shape)]

    @property
    def axis(self) -> int:
        """The axis of channels: second for images and vectors, last for tokens."""
        return 2 if len(self.shape) == 3 else 1

    @property
    def channels(self) -> int:
        return self.shape[self.axis]


Block = Callable[["Network", Value], Value | None]
BLOCKS: dict[str, list[Block]] = {"image": [], "tokens": [], "vector": []}
ACTIVATIONS = ("Relu", "Sigmoid", "Tanh", "Elu", "LeakyRelu", "HardSigmoid", "Softplus", "Abs", "Softsign")
RARER = {
    "Selu": 7,
    "Atan": 7,
    "Sin": 7,
    "Cos": 7,
    "Erf": 9,
    "Asinh": 9,
    "Celu": 12,
    "HardSwish": 14,
    "Mish": 18,
    "Gelu": 20,
}
"""Further smooth activations and the opset that brought them. Rounding ops are left out: they turn a difference in the
last bit into one of a whole step."""


def block(*layouts: str) -> Callable[[Block], Block]:
    """Register a block for values of these layouts; it returns None where it does not fit."""

    def register(function: Block) -> Block:
        for layout in layouts:
            BLOCKS[layout].append(function)
        return function

    return register


class Network:
    """A network under construction."""

    def __init__(self, choose: Choose) -> None:
        self._choose = choose
        self.g = GraphBuilder(
            opset=self.pick(17, 13, 11, 18, 21, 9, 23),
            seed=choose(0, 2**16),
            ir_version=11,
            constants_as=self.pick("initializer", "initializer", "node"),
        )
        self.values: list[Value] = []
        self.weights: dict[tuple[int, ...], list[str]] = {}
        self.dynamic = False
        self.domains: set[str] = set()

    # ------------------------------------------------------------------ chance

    def pick(self, *options):
        return options[self._choose(0, len(options) - 1)]

    def between(self, lowest: int, highest: int) -> int:
        return self._choose(lowest, highest)

    def chance(self, one_in: int) -> bool:
        return self._choose(1, one_in) == one_in

    # ------------------------------------------------------------------ parts

    def node(
        self, op: str, x: Value, *operands: str, shape: tuple[int, ...] | None = None, **attributes: object
    ) -> Value:
        return Value(self.g.node(op, x.name, *operands, **attributes), x.shape if shape is None else shape)

    def weight(self, *shape: int) -> str:
        """A new weight, one that is already in use elsewhere, or a new one behind a chain of nodes."""
        known = self.weights.setdefault(shape, [])
        if known and self.chance(4):
            return self.pick(*known)
        name = self._behind(shape) if self.chance(6) else self.g.weight(*shape)
        known.append(name)
        return name

    def _behind(self, shape: tuple[int, ...]) -> str:
        g = self.g
        match self.between(0, 4):
            case 0:
                return g.node("Identity", g.weight(*shape))
            case 1:
                order = tuple(reversed(range(len(shape))))
                return g.transpose(g.weight(*(shape[i] for i in order)), *order)
            case 2:
                return g.reshape(g.weight(shape[0], int(np.prod(shape[1:]))), *shape)
            case 3:
                half = g.constant(g.normal(*shape).astype(np.float16) / max(int(np.prod(shape[1:])), 1) ** 0.5)
                return g.node("Cast", half, to=TensorProto.FLOAT)
            case _:
                if g.opset < 10:
                    return g.node("Identity", g.weight(*shape))
                levels = g.constant(g.rng.integers(-100, 100, shape).astype(np.int8))
                scale, zero = g.weight(shape[0], low=0.01), g.constant(np.zeros(shape[0], dtype=np.int8))
                if g.opset < 13:
                    return g.node("DequantizeLinear", levels, g.constant(0.01), g.constant(np.array(0, dtype=np.int8)))
                half = g.node("DequantizeLinear", levels, scale, zero, axis=0)
                return g.node("Mul", half, g.constant(0.02))

    def vector(self, *shape: int, low: float = -0.5) -> str:
        key = (*shape, round(low * 2) - 1000)
        known = self.weights.setdefault(key, [])
        if known and self.chance(4):
            return self.pick(*known)
        known.append(self.g.weight(*shape, low=low))
        return known[-1]

    def reshape(self, x: Value, *shape: int) -> Value:
        """A Reshape whose target is written out, abbreviated, or computed from the shape of its input."""
        same = [i for i in range(min(len(shape), len(x.shape))) if x.shape[i] == shape[i]]
        sizes = list(shape)
        form = self.pick("copied", "inferred", "computed", "written")
        if form == "inferred":
            sizes[self.between(0, len(shape) - 1)] = -1
        if self.dynamic:  # the number of samples must not be written down
            sizes = [-1, *shape[1:]]
        if form == "copied":
            sizes = [0 if i in same else size for i, size in enumerate(sizes)]
        if form == "computed":
            size_of = self.g.node("Shape", x.name)
            parts = [
                self.g.node("Gather", size_of, self.g.ints(i), axis=0) if i in same else self.g.ints(size)
                for i, size in enumerate(sizes)
            ]
            return self.node("Reshape", x, self.g.node("Concat", *parts, axis=0), shape=shape)
        return self.node("Reshape", x, self.g.ints(*sizes), shape=shape)

    def transpose(self, x: Value, *perm: int) -> Value:
        return self.node("Transpose", x, perm=list(perm), shape=tuple(x.shape[i] for i in perm))

    def slice(self, x: Value, axis: int, start: int, end: int, step: int = 1) -> Value:
        index = range(x.shape[axis])[start : None if end < -x.shape[axis] else end : step]
        shape = (*x.shape[:axis], len(index), *x.shape[axis + 1 :])
        g = self.g
        if g.opset < 10 and step != 1:
            return self.node("Gather", x, g.ints(*index), axis=axis, shape=shape)
        if g.opset < 10:
            return self.node("Slice", x, starts=[start], ends=[end], axes=[axis], shape=shape)
        return self.node("Slice", x, g.ints(start), g.ints(end), g.ints(axis), g.ints(step), shape=shape)

    def pad(self, x: Value, axis: int, before: int, after: int, mode: str = "constant") -> Value:
        pads = [0] * (2 * len(x.shape))
        pads[axis], pads[axis + len(x.shape)] = before, after
        shape = (*x.shape[:axis], x.shape[axis] + before + after, *x.shape[axis + 1 :])
        if self.g.opset < 11:
            return self.node("Pad", x, pads=pads, mode=mode, shape=shape)
        return self.node("Pad", x, self.g.ints(*pads), mode=mode, shape=shape)

    def split(self, x: Value, axis: int, *sizes: int) -> list[Value]:
        g = self.g
        if g.opset < 13:
            names = g.node("Split", x.name, outputs=len(sizes), axis=axis, split=list(sizes))
        else:
            names = g.node("Split", x.name, g.ints(*sizes), outputs=len(sizes), axis=axis)
        return [Value(n, (*x.shape[:axis], s, *x.shape[axis + 1 :])) for n, s in zip(names, sizes, strict=True)]

    def concat(self, axis: int, *pieces: Value) -> Value:
        whole = sum(piece.shape[axis] for piece in pieces)
        shape = (*pieces[0].shape[:axis], whole, *pieces[0].shape[axis + 1 :])
        return Value(self.g.node("Concat", *(piece.name for piece in pieces), axis=axis), shape)

    def binary(self, op: str, a: Value, b: Value) -> Value:
        return Value(self.g.node(op, a.name, b.name), np.broadcast_shapes(a.shape, b.shape))

    def reduce(self, op: str, x: Value, *axes: int, keepdims: int = 1) -> Value:
        kept = [1 if i in axes else s for i, s in enumerate(x.shape) if keepdims or i not in axes]
        if self.g.opset >= (13 if op == "ReduceSum" else 18):
            return self.node(op, x, self.g.ints(*axes), keepdims=keepdims, shape=tuple(kept))
        return self.node(op, x, axes=list(axes), keepdims=keepdims, shape=tuple(kept))

    def softmax(self, x: Value, axis: int) -> Value:
        if self.g.opset >= 13 or axis == len(x.shape) - 1:
            return self.node("Softmax", x, axis=axis)
        exp = self.node("Exp", self.node("Tanh", x))
        return self.binary("Div", exp, self.reduce("ReduceSum", exp, axis))

    def conv(self, x: Value, outputs: int, kernel: int = 1, group: int = 1, stride: int = 1) -> Value:
        n, c, h, w = x.shape
        operands = [self.weight(outputs, c // group, kernel, kernel)]
        if not self.chance(3):
            operands.append(self.vector(outputs))
        out = (n, outputs, -(-h // stride), -(-w // stride))
        pads = [kernel // 2] * 4
        return self.node("Conv", x, *operands, group=group, pads=pads, strides=[stride, stride], shape=out)

    def linear(self, x: Value, outputs: int) -> Value:
        """A layer over the last axis of tokens or vectors."""
        inputs, g = x.shape[-1], self.g
        shape = (*x.shape[:-1], outputs)
        if len(x.shape) == 2 and self.chance(2):
            transposed = self.between(0, 1)
            w = self.weight(outputs, inputs) if transposed else g.constant(g.normal(inputs, outputs) / inputs**0.5)
            return self.node("Gemm", x, w, self.vector(outputs), transB=transposed, shape=shape)
        if self.g.opset >= 12 and self.chance(5):
            equation = "btc,cd->btd" if len(x.shape) == 3 else "bc,cd->bd"
            name = g.node("Einsum", x.name, g.constant(g.normal(inputs, outputs) / inputs**0.5), equation=equation)
            return Value(name, shape)
        product = self.node("MatMul", x, g.constant(g.normal(inputs, outputs) / inputs**0.5), shape=shape)
        return product if self.chance(3) else self.node("Add", product, self.vector(outputs))

    def layer(self, x: Value, outputs: int) -> Value:
        """The plainest layer of the value's layout."""
        return self.conv(x, outputs) if len(x.shape) == 4 else self.linear(x, outputs)

    def partner(self, x: Value, *axes: int) -> Value | None:
        """An existing value that agrees with x in all but `axes`."""
        fitting = [
            v
            for v in self.values
            if len(v.shape) == len(x.shape)
            and all(a == b or i in axes for i, (a, b) in enumerate(zip(v.shape, x.shape, strict=True)))
        ]
        return self.pick(*fitting) if fitting else None

    # ------------------------------------------------------------------ growth

    def grow(self) -> onnx.ModelProto:
        batch = self.pick(2, 1)
        self.dynamic = self.chance(6)
        declared, batch = ("batch", 2) if self.dynamic else (batch, batch)
        layout = self.pick("image", "image", "tokens", "vector")
        shape = {"image": (batch, 3, 4, 4), "tokens": (batch, 4, 6), "vector": (batch, 5)}[layout]
        start = Value(self.g.input((declared, *shape[1:])), shape)
        self.values.append(self.layer(start, self.pick(4, 6, 8, 12)))
        for _ in range(self.between(3, 14)):
            # The newest value most of the time, so that blocks stack up; older ones make branches.
            x = self.values[-1] if not self.chance(3) else self.pick(*self.values)
            made = self.pick(*BLOCKS[x.layout])(self, x)
            if made is not None and np.prod(made.shape) <= MAX_ELEMENTS and made.channels <= 2 * MAX_CHANNELS:
                self.values.append(made)
        ends = [self.values[-1]] + [self.pick(*self.values) for _ in range(self.pick(0, 0, 1, 2))]
        outputs = [end if self.chance(5) else self.layer(end, 3) for end in ends]
        names = dict.fromkeys(self.node("Identity", o).name for o in outputs)
        return self.g.model(*names, extra_domains=self.domains)


# ---------------------------------------------------------------------------------------------- layers


@block("image", "image")
def convolve(n: Network, x: Value) -> Value:
    return n.conv(x, n.pick(4, 6, 8, 12, 3, 1), n.pick(1, 3), stride=n.pick(1, 1, 2))


@block("image")
def convolve_in_groups(n: Network, x: Value) -> Value | None:
    group = n.pick(2, 3)
    return n.conv(x, group * n.pick(1, 2, 4), n.pick(1, 3), group) if x.channels % group == 0 else None


@block("image")
def convolve_each_channel(n: Network, x: Value) -> Value:
    return n.conv(x, x.channels * n.pick(1, 1, 2), n.pick(1, 3), x.channels)


@block("image")
def convolve_transposed(n: Network, x: Value) -> Value | None:
    b, c, h, w = x.shape
    group = n.pick(1, 1, 2, c)
    if c % group or h > 8:
        return None
    per_group = n.pick(1, 2, 4)
    operands = [n.weight(c, per_group, 2, 2)] + ([] if n.chance(3) else [n.vector(group * per_group)])
    shape = (b, group * per_group, 2 * h, 2 * w)
    return n.node("ConvTranspose", x, *operands, group=group, strides=[2, 2], shape=shape)


@block("tokens", "vector")
def densely(n: Network, x: Value) -> Value:
    return n.linear(x, n.pick(4, 6, 8, 12, 3))


@block("image")
def densely_channels_last(n: Network, x: Value) -> Value:
    last = n.transpose(x, 0, 2, 3, 1)
    outputs = n.pick(4, 6, 8)
    w = n.g.constant(n.g.normal(x.channels, outputs) / x.channels**0.5)
    made = n.node("MatMul", last, w, shape=(*last.shape[:3], outputs))
    made = n.node(n.pick(*ACTIVATIONS), n.node("Add", made, n.vector(outputs)))
    return n.transpose(made, 0, 3, 1, 2)


@block("tokens")
def along_the_sequence(n: Network, x: Value) -> Value:
    """A 1-D convolution, or a recurrent layer, over the tokens."""
    b, t, c = x.shape
    if n.chance(3):
        w, r = n.g.constant(0.3 * n.g.normal(1, 12, c)), n.g.constant(0.3 * n.g.normal(1, 12, 4))
        y = n.node("GRU", n.transpose(x, 1, 0, 2), w, r, hidden_size=4, shape=(t, 1, b, 4))
        return n.transpose(n.reshape(y, t, b, 4), 1, 0, 2)
    outputs, group = n.pick((4, 1), (6, 1), (c, c), (2 * c, c))
    made = n.node(
        "Conv",
        n.transpose(x, 0, 2, 1),
        n.weight(outputs, c // group, 3),
        n.vector(outputs),
        pads=[1, 1],
        group=group,
        shape=(b, outputs, t),
    )
    return n.transpose(made, 0, 2, 1)


# ---------------------------------------------------------------------------------------------- element by element


@block("image", "tokens", "vector")
def activate(n: Network, x: Value) -> Value:
    match n.between(0, 9):
        case 9:
            op = n.pick(*RARER)
            return n.node(op if n.g.opset >= RARER[op] else "Relu", x)
        case 8:
            return _quantised(n, x)
        case 0:
            return n.node("PRelu", x, n.vector(*_per_channel(x), low=0.0))
        case 1:
            if n.g.opset < 11:
                return n.node("Clip", x, min=-0.8, max=0.9)
            return n.node("Clip", x, n.g.constant(-0.8), n.g.constant(0.9))
        case 2:
            return n.binary("Mul", x, n.node("Sigmoid", x))
        case 3:
            return n.node("Dropout", x) if n.g.opset >= 12 else n.node("Identity", x)
        case 4:
            return n.node("Cast", n.node("Cast", x, to=TensorProto.DOUBLE), to=TensorProto.FLOAT)
        case _:
            return n.node(n.pick(*ACTIVATIONS), x)


def _quantised(n: Network, x: Value) -> Value:
    """To eight bits and back, with one scale or one for each channel."""
    if n.g.opset < 10:
        return n.node("Identity", x)
    scale, zero, axis = n.g.constant(0.05), n.g.constant(np.array(128, dtype=np.uint8)), {}
    if n.g.opset >= 13 and n.chance(2):
        scale, axis = n.g.weight(x.channels, low=0.05), {"axis": x.axis}
        zero = n.g.constant(n.g.rng.integers(120, 130, x.channels).astype(np.uint8))
    return n.node("DequantizeLinear", n.node("QuantizeLinear", x, scale, zero, **axis), scale, zero, **axis)


def _per_channel(x: Value) -> tuple[int, ...]:
    return (x.channels, 1, 1) if x.layout == "image" else (x.channels,)


@block("image", "tokens", "vector")
def with_a_constant(n: Network, x: Value) -> Value:
    shape = n.pick(_per_channel(x), (), x.shape[1:], (1, *x.shape[1:]), x.shape[-1:])
    op = n.pick("Add", "Mul", "Sub", "Div", "Max", "Min")
    constant = n.vector(*shape, low=0.6) if shape else n.g.constant(0.7)
    if op in ("Sub", "Max") and n.chance(2):
        return Value(n.g.node(op, constant, x.name), x.shape)
    return n.node(op, x, constant)


@block("image", "tokens", "vector")
def chosen_by_condition(n: Network, x: Value) -> Value:
    flags = n.node("Greater", x, n.g.constant(-3.0))
    other = n.pick(n.g.constant(0.1), n.vector(*_per_channel(x)))
    return Value(n.g.node("Where", flags.name, x.name, other), x.shape)


@block("image", "image", "tokens", "tokens", "vector")
def meet(n: Network, x: Value) -> Value | None:
    """With another value of the same shape, after a layer where the channels differ."""
    y = n.partner(x, x.axis)
    if y is None:
        return None
    if y.channels != x.channels:
        y = n.layer(y, n.pick(x.channels, x.channels, 1))
    op = n.pick("Add", "Add", "Sub", "Mul", "Max", "Sum", "Mean")
    if op == "Mul":
        y = n.node("Tanh", y)
    return n.binary(op, x, y)


@block("image", "tokens", "vector")
def residual(n: Network, x: Value) -> Value:
    inner = n.node("Relu", n.layer(x, n.pick(4, 6, 8)))
    return n.binary("Add", n.layer(inner, x.channels), x)


# ---------------------------------------------------------------------------------------------- normalisation


@block("image", "vector", "image")
def batch_norm(n: Network, x: Value) -> Value:
    parameters = [n.vector(x.channels, low=low) for low in (0.5, -0.5, -0.5, 0.5)]
    return n.node("BatchNormalization", x, *parameters)


@block("image")
def instance_norm(n: Network, x: Value) -> Value | None:
    if x.shape[2] * x.shape[3] < 4:
        return None
    return n.node("InstanceNormalization", x, n.vector(x.channels, low=0.5), n.vector(x.channels), epsilon=0.1)


@block("image")
def group_norm(n: Network, x: Value) -> Value | None:
    b, c, h, w = x.shape
    groups = n.pick(2, 3)
    if c % groups or c == groups:
        return None
    if n.g.opset >= 21 and n.chance(2):
        operands = [n.vector(c, low=0.5), n.vector(c)]
        return n.node("GroupNormalization", x, *operands, num_groups=groups, epsilon=0.1)
    flat = n.node(
        "InstanceNormalization",
        n.reshape(x, b, groups, c // groups * h * w),
        n.g.constant(np.ones(groups, dtype=np.float32)),
        n.g.constant(np.zeros(groups, dtype=np.float32)),
        epsilon=0.1,
    )
    scaled = n.node("Mul", n.reshape(flat, b, c, h, w), n.vector(c, 1, 1, low=0.5))
    return n.node("Add", scaled, n.vector(c, 1, 1))


@block("tokens", "image")
def layer_norm(n: Network, x: Value) -> Value:
    """As one node, or as the nodes that older exporters write."""
    last = x if x.layout == "tokens" else n.transpose(x, 0, 2, 3, 1)
    axis, c = len(last.shape) - 1, last.shape[-1]
    if n.g.opset >= 17 and n.chance(2):
        made = n.node("LayerNormalization", last, n.vector(c, low=0.5), n.vector(c), axis=-1, epsilon=0.1)
    else:
        centred = n.binary("Sub", last, n.reduce("ReduceMean", last, axis))
        square = n.node("Pow", centred, n.g.constant(2.0))
        variance = n.node("Add", n.reduce("ReduceMean", square, axis), n.g.constant(0.1))
        made = n.binary("Div", centred, n.node("Sqrt", variance))
        made = n.node("Add", n.node("Mul", made, n.vector(c, low=0.5)), n.vector(c))
    return made if x.layout == "tokens" else n.transpose(made, 0, 3, 1, 2)


@block("tokens")
def rms_norm(n: Network, x: Value) -> Value:
    if n.g.opset >= 23:
        return n.node("RMSNormalization", x, n.vector(x.channels, low=0.5), axis=-1, epsilon=0.1)
    square = n.reduce("ReduceMean", n.binary("Mul", x, x), 2)
    root = n.node("Sqrt", n.node("Add", square, n.g.constant(0.1)))
    return n.node("Mul", n.binary("Div", x, root), n.vector(x.channels, low=0.5))


@block("image")
def over_neighbours(n: Network, x: Value) -> Value:
    if n.chance(2):
        return n.node("LRN", x, size=3)
    return n.node("MeanVarianceNormalization", n.node("Tanh", x), axes=n.pick([0, 2, 3], [1, 2, 3]))


@block("image", "tokens", "vector")
def summed_up(n: Network, x: Value) -> Value | None:
    """A running sum along any axis, kept small."""
    if n.g.opset < 11:
        return None
    axis = n.g.constant(np.array(n.between(1, len(x.shape) - 1), dtype=np.int64))
    return n.node("Mul", n.node("CumSum", x, axis, reverse=n.pick(0, 1), exclusive=n.pick(0, 1)), n.g.constant(0.3))


@block("image", "tokens", "vector")
def lp_norm(n: Network, x: Value) -> Value:
    return n.node("LpNormalization", n.node("Add", n.node("Abs", x), n.g.constant(0.1)), axis=n.pick(x.axis, -1), p=2)


@block("image", "tokens", "vector")
def softmax_gate(n: Network, x: Value) -> Value:
    return n.binary("Mul", x, n.softmax(x, n.between(1, len(x.shape) - 1)))


# ---------------------------------------------------------------------------------------------- reduction and gates


@block("image", "tokens", "vector")
def reduced_and_spread(n: Network, x: Value) -> Value:
    op = n.pick("Sum", "Mean", "Max", "L2", "L1", "Min", "SumSquare", "LogSumExp", "Prod")
    op = f"Reduce{op}"
    axis = n.between(1, len(x.shape) - 1)
    small = n.reduce(op, n.node("Tanh", x), axis)
    return n.binary("Mul", x, n.node("Sigmoid", small))


@block("image")
def squeeze_and_excite(n: Network, x: Value) -> Value:
    pooled = n.pick(
        lambda: n.node("GlobalAveragePool", x, shape=(*x.shape[:2], 1, 1)),
        lambda: n.reduce("ReduceMean", x, 2, 3),
    )()
    if n.chance(3):
        flat = n.linear(n.node("Relu", n.linear(n.reshape(pooled, *x.shape[:2]), 4)), x.channels)
        gate = n.reshape(flat, *x.shape[:2], 1, 1)
    else:
        gate = n.conv(n.node("Relu", n.conv(pooled, n.pick(2, 4))), x.channels)
    gate = n.node("HardSigmoid", gate)
    if n.chance(4):
        gate = n.node("Expand", gate, n.g.node("Shape", x.name), shape=x.shape)
    elif n.chance(4):
        gate = n.node("Tile", gate, n.g.ints(1, 1, *x.shape[2:]), shape=x.shape)
    return n.binary("Mul", x, gate)


@block("image")
def choose_between_kernels(n: Network, x: Value) -> Value:
    """Selective kernels: a softmax over two branches, per channel."""
    b, _, h, w = x.shape
    width = n.pick(4, 6)
    branches = [n.node("Relu", n.conv(x, width, k)) for k in (1, 3)]
    pooled = n.reduce("ReduceMean", n.binary("Add", *branches), 2, 3)
    votes = [n.reshape(n.conv(n.conv(pooled, 3), width), b, 1, width, 1, 1) for _ in branches]
    stacked = n.concat(1, *votes)
    exp = n.node("Exp", n.node("Tanh", stacked))
    weights = n.binary("Div", exp, n.reduce("ReduceSum", exp, 1))
    both = n.concat(1, *(n.reshape(branch, b, 1, width, h, w) for branch in branches))
    return n.reduce("ReduceSum", n.binary("Mul", both, weights), 1, keepdims=0)


@block("image", "tokens", "vector")
def filled(n: Network, x: Value) -> Value:
    """A tensor of one value, as large as x."""
    value = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.3])
    return n.node("Add", x, n.g.node("ConstantOfShape", n.g.node("Shape", x.name), value=value))


@block("image", "tokens", "vector")
def there_in_a_branch(n: Network, x: Value) -> Value | None:
    """An If whose branches read x, each with a layer of its own."""
    if not n.chance(3):
        return None
    flag = n.g.node("Greater", n.reduce("ReduceMax", x, *range(len(x.shape)), keepdims=0).name, n.g.constant(0.4))
    outer, made = n.g, []
    for op in ("Relu", "Tanh"):
        n.g, weights = outer.inside(), n.weights
        n.weights = {}
        y = n.node(op, n.layer(n.layer(x, 5), 4))
        shape = [None if n.dynamic and axis == 0 else size for axis, size in enumerate(y.shape)]
        made.append(n.g.body([], [helper.make_tensor_value_info(y.name, TensorProto.FLOAT, shape)]))
        n.g, n.weights = outer, weights
    return Value(n.g.node("If", flag, then_branch=made[0], else_branch=made[1]), y.shape)


@block("image", "tokens", "vector")
def through_an_op_without_a_rule(n: Network, x: Value) -> Value | None:
    """ONNX Runtime's own ops run, and pin what they touch."""
    if not n.chance(4):
        return None
    n.domains.add("com.microsoft")
    return n.node("SampleOp", x, domain="com.microsoft")


@block("image", "tokens", "vector")
def with_another_axis(n: Network, x: Value) -> Value:
    """Unsqueezed, activated, squeezed."""
    axis = n.between(0, len(x.shape))
    given = ([n.g.ints(axis)], {}) if n.g.opset >= 13 else ([], {"axes": [axis]})
    inner = n.g.node("Relu", n.g.node("Unsqueeze", x.name, *given[0], **given[1]))
    return Value(n.g.node("Squeeze", inner, *given[0], **given[1]), x.shape)


@block("image", "tokens")
def by_elements(n: Network, x: Value) -> Value | None:
    """Ops that index or order single elements along an axis."""
    if n.g.opset < 11 or n.dynamic:
        return None
    axis = n.between(1, len(x.shape) - 1)
    match n.between(0, 3):
        case 0:
            index = n.g.rng.integers(0, x.shape[axis], x.shape)
            return n.node("GatherElements", x, n.g.constant(index.astype(np.int64)), axis=axis)
        case 1:
            length = n.g.ints(*[max(x.shape[1] - 1, 1)] * x.shape[0])
            return n.node("ReverseSequence", x, length, batch_axis=0, time_axis=1)
        case 2 if n.g.opset >= 14:
            return n.node("Trilu", x, upper=n.pick(0, 1))
        case _:
            index = n.g.constant(np.arange(x.shape[0], dtype=np.int64)[::-1].reshape(-1, 1).copy())
            return n.node("GatherND", x, index)


@block("image")
def spatial_gate(n: Network, x: Value) -> Value:
    """One channel, spread over all of them by broadcasting, Expand or Tile."""
    gate = n.node("Sigmoid", n.conv(x, 1, n.pick(1, 3)))
    match n.between(0, 2):
        case 0:
            gate = n.node("Expand", gate, n.g.ints(1, *x.shape[1:]), shape=x.shape)
        case 1:
            gate = n.node("Tile", gate, n.g.ints(1, x.channels, 1, 1), shape=x.shape)
    return n.binary("Mul", x, gate)


# ---------------------------------------------------------------------------------------------- index maps


@block("image", "image", "tokens", "vector")
def join(n: Network, x: Value) -> Value | None:
    pieces = [x, *(y for y in (n.partner(x, x.axis) for _ in range(n.pick(1, 1, 2))) if y is not None)]
    if sum(piece.channels for piece in pieces) > MAX_CHANNELS:
        return None
    return n.concat(x.axis, *(pieces if n.chance(2) else pieces[::-1]))


@block("image", "tokens", "vector")
def split_and_join(n: Network, x: Value) -> Value | None:
    if x.channels < 3:
        return None
    cut = n.between(1, x.channels - 1)
    a, b = n.split(x, x.axis, cut, x.channels - cut)
    match n.between(0, 3):
        case 0:
            return n.concat(x.axis, b, n.node("Relu", a))
        case 1:
            return n.concat(x.axis, n.layer(a, 4), b)
        case 2:
            return n.binary("Add", n.layer(a, 6), n.layer(b, 6))
        case _:
            return a


@block("image", "tokens", "vector")
def halve_and_gate(n: Network, x: Value) -> Value | None:
    if x.channels % 2 or x.channels < 4:
        return None
    if n.chance(2):
        a, b = n.split(x, x.axis, x.channels // 2, x.channels // 2)
    else:
        a, b = (n.slice(x, x.axis, start, end) for start, end in ((0, x.channels // 2), (x.channels // 2, 2**31)))
    return n.binary("Mul", a, n.node("Sigmoid", b))


@block("image", "tokens", "vector")
def slice_channels(n: Network, x: Value) -> Value | None:
    if x.channels < 4:
        return None
    start, step = n.between(0, 2), n.pick(1, 1, 2, 3)
    if n.chance(5):
        return n.slice(x, x.axis, -1, -(2**31), -1)
    return n.slice(x, x.axis, start, n.pick(x.channels, 2**31, -1), step)


@block("image", "tokens", "vector")
def gather_channels(n: Network, x: Value) -> Value:
    index = n.g.rng.integers(-x.channels, x.channels, n.between(2, 8))
    if n.chance(2):
        index = n.g.rng.permutation(x.channels)
    shape = (*x.shape[: x.axis], len(index), *x.shape[x.axis + 1 :])
    return n.node("Gather", x, n.g.ints(*index.tolist()), axis=x.axis, shape=shape)


@block("image", "tokens", "vector")
def pick_a_channel(n: Network, x: Value) -> Value:
    one = n.slice(x, x.axis, 1, 2) if x.channels > 1 else x
    return n.binary("Mul", x, n.node("Sigmoid", one))


@block("image", "tokens", "vector")
def pad_channels(n: Network, x: Value) -> Value:
    return n.pad(x, x.axis, n.between(0, 2), n.between(0, 2))


@block("image")
def shortcut_without_weights(n: Network, x: Value) -> Value | None:
    """Option A: every second position, channels padded with zeros, beside a convolution with a stride."""
    _, c, h, w = x.shape
    if h < 2 or w < 2 or h % 2 or w % 2:
        return None
    thin = n.slice(n.slice(x, 2, 0, 2**31, 2), 3, 0, 2**31, 2)
    wide = n.pad(thin, 1, c // 2, c - c // 2)
    return n.binary("Add", n.conv(x, 2 * c, 3, stride=2), wide)


@block("image", "vector")
def write_in_place(n: Network, x: Value) -> Value | None:
    """y = x; y[:, some] += f(x[:, some]), as ScatterND on the channels in front."""
    if x.channels < 4 or n.g.opset < 11:
        return None
    index = np.sort(n.g.rng.permutation(x.channels)[: n.between(1, 3)])
    order = tuple(range(2, len(x.shape)))
    front = n.transpose(x, 1, 0, *order)
    some = n.node("Gather", front, n.g.ints(*index.tolist()), axis=0, shape=(len(index), *front.shape[1:]))
    where = n.g.constant(index.reshape(-1, 1).astype(np.int64))
    written = n.node("ScatterND", front, where, n.node("Tanh", some).name)
    return n.transpose(written, 1, 0, *order)


@block("image", "tokens")
def along_positions(n: Network, x: Value) -> Value | None:
    """Slices, pads and joins along an axis that holds no channels."""
    axis = 2 if x.layout == "image" else 1
    match n.between(0, 4):
        case 0:
            return n.slice(x, axis, 0, n.pick(2, 2**31)) if x.shape[axis] > 2 else None
        case 1:
            return n.concat(axis, x, n.node("Neg", x)) if x.shape[axis] < 6 else None
        case 2:
            return n.pad(x, axis, 1, 0, n.pick("constant", "edge"))
        case 3:
            index = n.g.rng.integers(0, x.shape[axis], 3).tolist()
            return n.node("Gather", x, n.g.ints(*index), axis=axis, shape=(*x.shape[:axis], 3, *x.shape[axis + 1 :]))
        case _:
            old = n.g.opset < 10
            values = n.g.node(
                "TopK", x.name, *([] if old else [n.g.ints(1)]), outputs=2, axis=axis, **{"k": 1} if old else {}
            )[0]
            return Value(values, (*x.shape[:axis], 1, *x.shape[axis + 1 :]))


# ---------------------------------------------------------------------------------------------- shape


@block("image")
def shuffle_channels(n: Network, x: Value) -> Value | None:
    b, c, h, w = x.shape
    groups = n.pick(2, 3, 4)
    if c % groups:
        return None
    apart = n.transpose(n.reshape(x, b, groups, c // groups, h, w), 0, 2, 1, 3, 4)
    return n.reshape(apart, b, c, h, w)


@block("image")
def depth_to_space(n: Network, x: Value) -> Value | None:
    b, c, h, w = x.shape
    if c % 4 or h > 6:
        return None
    if n.chance(2):
        mode = {"mode": n.pick("DCR", "CRD")} if n.g.opset >= 11 else {}
        return n.node("DepthToSpace", x, blocksize=2, **mode, shape=(b, c // 4, 2 * h, 2 * w))
    apart = n.transpose(n.reshape(x, b, c // 4, 2, 2, h, w), 0, 1, 4, 2, 5, 3)
    return n.reshape(apart, b, c // 4, 2 * h, 2 * w)


@block("image")
def space_to_depth(n: Network, x: Value) -> Value | None:
    b, c, h, w = x.shape
    if h % 2 or w % 2 or c > 6:
        return None
    if n.chance(2):
        return n.node("SpaceToDepth", x, blocksize=2, shape=(b, 4 * c, h // 2, w // 2))
    apart = n.transpose(n.reshape(x, b, c, h // 2, 2, w // 2, 2), 0, 1, 3, 5, 2, 4)
    return n.reshape(apart, b, 4 * c, h // 2, w // 2)


@block("image")
def focus(n: Network, x: Value) -> Value | None:
    """Space to depth by four strided slices, as in YOLO."""
    _, c, h, w = x.shape
    if h % 2 or w % 2 or c > 6:
        return None
    quarters = [n.slice(n.slice(x, 2, i, 2**31, 2), 3, j, 2**31, 2) for i in (0, 1) for j in (0, 1)]
    return n.concat(1, *quarters)


@block("image")
def pool(n: Network, x: Value) -> Value | None:
    b, c, h, w = x.shape
    if h < 2 or w < 2:
        return None
    op = n.pick("MaxPool", "AveragePool", "LpPool")
    return n.node(op, x, kernel_shape=[2, 2], strides=[2, 2], shape=(b, c, h // 2, w // 2))


@block("image")
def resize(n: Network, x: Value) -> Value | None:
    b, c, h, w = x.shape
    if h > 5:
        return None
    g = n.g
    mode = n.pick("nearest", "linear")
    if g.opset < 10:
        scales = g.constant(np.array([1, 1, 2, 2], dtype=np.float32))
        return n.node("Upsample", x, scales, mode=mode, shape=(b, c, 2 * h, 2 * w))
    empty = [g.constant(np.zeros(0, dtype=np.float32)) for _ in range(2)] if g.opset < 13 else ["", ""]
    if n.chance(2):
        scales = g.constant(np.array([1, 1, 2, 2], dtype=np.float32))
        return n.node("Resize", x, empty[0], scales, mode=mode, shape=(b, c, 2 * h, 2 * w))
    if n.chance(2):
        head = g.node("Slice", g.node("Shape", x.name), g.ints(0), g.ints(2), g.ints(0))
        sizes = g.node("Concat", head, g.ints(h + 1, w + 2), axis=0)
    else:
        if n.dynamic:
            return None
        sizes = g.ints(b, c, h + 1, w + 2)
    return n.node("Resize", x, *empty, sizes, mode=mode, shape=(b, c, h + 1, w + 2))


@block("image")
def to_tokens(n: Network, x: Value) -> Value | None:
    b, c, h, w = x.shape
    if h * w < 2 or c < 2:
        return None
    return n.transpose(n.reshape(x, b, c, h * w), 0, 2, 1)


@block("image", "tokens", "image")
def to_vector(n: Network, x: Value) -> Value | None:
    if n.chance(2):
        axes = (2, 3) if x.layout == "image" else (1,)
        return n.reduce(n.pick("ReduceMean", "ReduceSum", "ReduceMax"), x, *axes, keepdims=0)
    size = int(np.prod(x.shape[1:]))
    if size > 128:
        return None
    flat = n.node("Flatten", x, axis=1, shape=(x.shape[0], size)) if n.chance(2) else n.reshape(x, x.shape[0], size)
    return n.linear(flat, 6)


@block("image")
def to_vector_by_squeezing(n: Network, x: Value) -> Value | None:
    if x.channels < 2:
        return None
    pooled = n.node("GlobalMaxPool", x, shape=(*x.shape[:2], 1, 1))
    if x.shape[0] > 1 and not n.dynamic and n.chance(2):
        return n.node("Squeeze", pooled, shape=x.shape[:2])
    if n.g.opset >= 13:
        return n.node("Squeeze", pooled, n.g.ints(2, 3), shape=x.shape[:2])
    return n.node("Squeeze", pooled, axes=[2, 3], shape=x.shape[:2])


@block("tokens")
def to_image(n: Network, x: Value) -> Value | None:
    b, t, c = x.shape
    side = round(t**0.5)
    return n.reshape(n.transpose(x, 0, 2, 1), b, c, side, side) if side * side == t else None


@block("vector")
def vector_to_image(n: Network, x: Value) -> Value | None:
    b, c = x.shape
    shape = n.pick((b, c, 1, 1), (b, c // 4, 2, 2))
    return n.reshape(x, *shape) if c % 4 == 0 else None


@block("vector")
def vector_to_tokens(n: Network, x: Value) -> Value | None:
    b, c = x.shape
    return n.reshape(x, b, 2, c // 2) if c % 2 == 0 and c > 4 else None


@block("image", "tokens")
def there_and_back(n: Network, x: Value) -> Value:
    """Reshapes and transposes that cancel out."""
    flat = n.reshape(x, x.shape[0], int(np.prod(x.shape[1:])))
    return n.reshape(n.node("Relu", flat), *x.shape)


# ---------------------------------------------------------------------------------------------- attention


@block("tokens", "tokens")
def attention(n: Network, x: Value) -> Value | None:
    """Softmax attention over several heads: q, k and v from three layers or from one that is split or indexed."""
    b, t, c = x.shape
    heads, width = n.pick(1, 2, 3), n.pick(2, 4)
    if n.chance(2):
        q, k, v = (n.reshape(n.linear(x, heads * width), b, t, heads, width) for _ in range(3))
        q, k, v = (n.transpose(y, 0, 2, 1, 3) for y in (q, k, v))
    else:
        fused = n.linear(x, 3 * heads * width)
        if n.chance(2):
            parts = n.split(fused, 2, *[heads * width] * 3)
            q, k, v = (n.transpose(n.reshape(y, b, t, heads, width), 0, 2, 1, 3) for y in parts)
        else:
            five = n.transpose(n.reshape(fused, b, t, 3, heads, width), 2, 0, 3, 1, 4)
            one = lambda i: n.g.constant(np.array(i, dtype=np.int64))  # noqa: E731
            q, k, v = (n.node("Gather", five, one(i), axis=0, shape=(b, heads, t, width)) for i in range(3))
    keys = n.transpose(k, 0, 1, 3, 2)
    if n.chance(3):
        size = n.g.node("Gather", n.g.node("Shape", q.name), n.g.ints(3), axis=0)
        scale = n.g.node("Sqrt", n.g.node("Cast", size, to=TensorProto.FLOAT))
        scores = n.node("Div", n.node("MatMul", q, keys.name, shape=(b, heads, t, t)), scale)
    else:
        q = n.node("Mul", q, n.g.constant(width**-0.5))
        scores = n.node("MatMul", q, keys.name, shape=(b, heads, t, t))
    if n.chance(3):
        scores = n.node("Add", scores, n.vector(heads, t, t))
    mixed = n.node("MatMul", n.node("Softmax", scores, axis=-1), v.name, shape=(b, heads, t, width))
    joined = n.reshape(n.transpose(mixed, 0, 2, 1, 3), b, t, heads * width)
    out = n.linear(joined, c)
    return n.binary("Add", out, x) if n.chance(2) else out


@block("image")
def linear_attention(n: Network, x: Value) -> Value:
    """Attention between channels: q, k, v from a 1 x 1 convolution, the softmax over positions or widths."""
    b, c, h, w = x.shape
    width = n.pick(2, 4)
    q, k, v = (n.reshape(n.conv(x, width), b, width, h * w) for _ in range(3))
    k = n.node("Softmax", k, axis=-1)
    context = n.node("MatMul", k, n.transpose(v, 0, 2, 1).name, shape=(b, width, width))
    mixed = n.node("MatMul", n.transpose(context, 0, 2, 1), q.name, shape=(b, width, h * w))
    return n.conv(n.reshape(mixed, b, width, h, w), c)


@block("tokens")
def mix_tokens(n: Network, x: Value) -> Value:
    """An MLP across the tokens."""
    turned = n.transpose(x, 0, 2, 1)
    inner = n.node("Relu", n.linear(turned, n.pick(3, 6)))
    return n.transpose(n.linear(inner, x.shape[1]), 0, 2, 1)


@block("tokens")
def with_a_class_token(n: Network, x: Value) -> Value | None:
    b, t, c = x.shape
    if t > 8:
        return None
    token = n.g.weight(1, 1, c)
    size = n.g.node("Gather", n.g.node("Shape", x.name), n.g.ints(0)) if n.dynamic else n.g.ints(b)
    spread = n.g.node("Expand", token, n.g.node("Concat", size, n.g.ints(1, 1 if n.chance(3) else c), axis=0))
    return n.node("Add", n.concat(1, Value(spread, (b, 1, c)), x), n.vector(1, t + 1, c))


@block("tokens")
def one_token(n: Network, x: Value) -> Value:
    index = n.g.constant(np.array(n.between(0, 1) % x.shape[1], dtype=np.int64))
    return n.node("Gather", x, index, axis=1, shape=(x.shape[0], x.shape[2]))


@block("tokens")
def windows(n: Network, x: Value) -> Value | None:
    """Tokens cut into windows, a layer inside, and back."""
    b, t, c = x.shape
    if t % 2:
        return None
    cut = n.reshape(x, b * 2, t // 2, c)
    return n.reshape(n.node("Tanh", n.linear(cut, 6)), b, t, 6)
