"""Nodes written in place of others, as standard_ops and decided_flow put them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import helper, numpy_helper

from worker.engine.graph.facts import fixed_sizes
from worker.engine.graph.onnx_graph import FLOATS, OnnxGraph

Op: TypeAlias = tuple[str, str]
"""Domain and name."""
Rewrite: TypeAlias = Callable[["Rewriting", int, onnx.NodeProto], bool]
"""(rewriting, index, copy of the node) -> whether nodes that stand for it were added."""


def op_of(node: onnx.NodeProto) -> Op:
    return ("" if node.domain == "ai.onnx" else node.domain), node.op_type


class Rewriting:
    """One pass over a graph that puts other nodes, with new names, in place of those that `rewrites` has a form for."""

    def __init__(self, graph: OnnxGraph, rewrites: Mapping[Op, Rewrite]) -> None:
        self.graph = graph
        self.count = 0
        self.opened = False
        """Whether a body was written out."""
        self._rewrites = rewrites
        self._taken = {*graph.constants, *graph.producer, *(value.name for value in graph.proto.input)}
        floats = [t.data_type for t in graph.constants.values() if t.data_type in FLOATS]
        self._float = max(FLOATS, key=floats.count)
        self._new: list[onnx.NodeProto] = []
        self._fixed_sizes: dict[str, tuple[int | None, ...]] | None = None

    def edit(self, index: int, node: onnx.NodeProto, nodes: list[onnx.NodeProto]) -> None:
        self._new = []
        rewrite = self._rewrites.get(op_of(node))
        if rewrite is not None and rewrite(self, index, node):
            nodes.extend(self._new)
            self.count += 1
        else:
            nodes.append(node)

    def add(self, op: str, *inputs: str, to: str | None = None, named: str = "", **attributes: Any) -> str:  # noqa: ANN401
        """Append a node; the name of its output."""
        name = to or self.fresh(f"{inputs[0] if inputs else op}/{op}")
        self._taken.add(name)
        self._new.append(helper.make_node(op, list(inputs), [name], named or name, **attributes))
        return name

    def fresh(self, stem: str) -> str:
        """A name that no tensor has yet."""
        name, number = stem, 0
        while name in self._taken:
            number += 1
            name = f"{stem}_{number}"
        self._taken.add(name)
        return name

    def number(self, value: float) -> str:
        """A scalar of the type in which the network computes."""
        array = np.array(value, helper.tensor_dtype_to_np_dtype(self._float))
        return self.add("Constant", value=numpy_helper.from_array(array))

    def integers(self, *values: int) -> str:
        return self.add("Constant", value=numpy_helper.from_array(np.array(values, np.int64)))

    def unsqueezed(self, name: str, axis: int) -> str:
        if self.graph.opset < 13:
            return self.add("Unsqueeze", name, axes=[axis])
        return self.add("Unsqueeze", name, self.integers(axis))

    def extend(self, nodes: Iterable[onnx.NodeProto]) -> None:
        self._new.extend(nodes)

    def constant(self, name: str) -> np.ndarray | None:
        return self.graph.array(name) if name in self.graph.constants else None

    def rank(self, name: str) -> int | None:
        """Of a constant, or as the file declares it, which what ONNX Runtime saves does for every tensor."""
        if name in self.graph.constants:
            return len(self.graph.shape(name))
        declared = (*self.graph.proto.value_info, *self.graph.proto.input)
        shapes = [v.type.tensor_type.shape for v in declared if v.name == name and v.type.tensor_type.HasField("shape")]
        return len(shapes[0].dim) if shapes else None

    def sizes(self, name: str) -> tuple[int | None, ...] | None:
        """Of any tensor, as far as they are the same for all inputs."""
        if self._fixed_sizes is None:
            self._fixed_sizes = fixed_sizes(self.graph)
        return self._fixed_sizes.get(name)

    def maker(self, name: str) -> onnx.NodeProto | None:
        index = self.graph.producer.get(name)
        return None if index is None or self.graph.scope[index] else self.graph.nodes[index]
