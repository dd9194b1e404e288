"""Whole small networks in the idiom of the tools that write ONNX files: their registry, and words that they share."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx

from tests.engine.graph.graph_builder import GraphBuilder

INT64_MAX = 2**63 - 1
Draw = Callable[[GraphBuilder], str]


@dataclass(frozen=True)
class Idiom:
    """`free` of the network's `layers` have channels that can go; the last one never has."""

    draw: Draw
    opset: int
    free: int
    layers: int
    constants_as: str
    ir_version: int
    inexact: bool

    def __str__(self) -> str:
        return f"{self.draw.__name__}-{self.opset}" + ("-nodes" if self.constants_as == "node" else "")

    def model(self) -> onnx.ModelProto:
        ir_version = self.ir_version or (11 if self.opset > 20 else 8)
        g = GraphBuilder(self.opset, ir_version=ir_version, constants_as=self.constants_as)
        output = self.draw(g)
        return g.model(output, extra_domains=sorted({node.domain for node in g.nodes} - {""}))


IDIOMS: list[Idiom] = []


def idiom(
    free: int,
    layers: int,
    *opsets: int,
    constants_as: str = "initializer",
    ir_version: int = 0,
    inexact: bool = False,
) -> Callable[[Draw], Draw]:
    def register(draw: Draw) -> Draw:
        IDIOMS.extend(Idiom(draw, opset, free, layers, constants_as, ir_version, inexact) for opset in opsets or (17,))
        return draw

    return register


def scalar(g: GraphBuilder, value: int) -> str:
    return g.constant(np.array(value, dtype=np.int64))


def squeeze(g: GraphBuilder, x: str, *axes: int, op: str = "Squeeze") -> str:
    return str(g.node(op, x, g.ints(*axes)) if g.opset >= 13 else g.node(op, x, axes=list(axes)))


def unsqueeze(g: GraphBuilder, x: str, *axes: int) -> str:
    return squeeze(g, x, *axes, op="Unsqueeze")


def clip(g: GraphBuilder, x: str, low: float, high: float) -> str:
    if g.opset < 11:
        return str(g.node("Clip", x, min=low, max=high))
    return str(g.node("Clip", x, g.constant(low), g.constant(high)))


def reduce_mean(g: GraphBuilder, x: str, *axes: int, keepdims: int = 1) -> str:
    if g.opset >= 18:
        return str(g.node("ReduceMean", x, g.ints(*axes), keepdims=keepdims))
    return str(g.node("ReduceMean", x, axes=list(axes), keepdims=keepdims))


def reduce_sum(g: GraphBuilder, x: str, *axes: int, keepdims: int = 1) -> str:
    if g.opset >= 13:
        return str(g.node("ReduceSum", x, g.ints(*axes), keepdims=keepdims))
    return str(g.node("ReduceSum", x, axes=list(axes), keepdims=keepdims))


def chunk(g: GraphBuilder, x: str, axis: int, *sizes: int) -> tuple[str, ...]:
    if g.opset < 13:
        return g.node("Split", x, outputs=len(sizes), axis=axis, split=list(sizes))
    return g.node("Split", x, g.ints(*sizes), outputs=len(sizes), axis=axis)


def cut_out(g: GraphBuilder, x: str, axis: int, start: int, end: int, step: int = 1) -> str:
    if g.opset < 10:
        return str(g.node("Slice", x, starts=[start], ends=[end], axes=[axis]))
    return str(g.node("Slice", x, g.ints(start), g.ints(end), g.ints(axis), g.ints(step)))


def size_of(g: GraphBuilder, x: str, axis: int) -> str:
    """The size of one axis as a list of one, as traced code computes it."""
    return unsqueeze(g, g.node("Gather", g.node("Shape", x), scalar(g, axis), axis=0), 0)
