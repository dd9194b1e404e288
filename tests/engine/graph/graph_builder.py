"""Small ONNX graphs with random weights, written down in a few lines."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]
Dims = Sequence[int | str | None]


class GraphBuilder:
    """Collects nodes and constants; `node` names what it makes, `model` checks and returns the whole.

    >>> g = GraphBuilder(opset=17)
    >>> x = g.input((1, 3, 8, 8))
    >>> g.model(g.conv(g.node("Relu", g.conv(x, 3, 8)), 8, 4)).graph.node[1].op_type
    'Relu'
    """

    def __init__(
        self, opset: int = 17, *, seed: int = 0, ir_version: int = 8, constants_as: str = "initializer"
    ) -> None:
        self.opset = opset
        self.ir_version = ir_version
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.declared: list[onnx.ValueInfoProto] = []
        self._constants_as = constants_as
        self._taken = itertools.count(1)

    def name(self, stem: str) -> str:
        return f"{stem}_{next(self._taken)}"

    def input(self, shape: Dims, name: str = "", kind: int = TensorProto.FLOAT) -> str:
        name = name or self.name("input")
        self.inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def constant(self, value: Array | Sequence[int] | float, name: str = "") -> str:
        """An initializer, or a Constant node where the graph was asked to hold its weights so."""
        array = np.asarray(value)
        if array.dtype == np.float64 and not isinstance(value, np.ndarray):
            array = array.astype(np.float32)
        name = name or self.name("constant")
        tensor = numpy_helper.from_array(array, name)
        if self._constants_as == "node":
            self.nodes.append(helper.make_node("Constant", [], [name], f"{name}_node", value=tensor))
        else:
            self.initializers.append(tensor)
        return name

    def weight(self, *shape: int, name: str = "", low: float | None = None) -> str:
        """Normal with unit gain over all but the first axis; uniform in low..low + 1 where `low` is given."""
        if low is not None:
            return self.constant(self.rng.uniform(low, low + 1.0, shape).astype(np.float32), name)
        fan_in = max(int(np.prod(shape[1:])), 1)
        return self.constant((self.rng.standard_normal(shape) / fan_in**0.5).astype(np.float32), name)

    def node(self, op: str, *inputs: str, outputs: int = 1, name: str = "", domain: str = "", **attributes: Any) -> Any:
        """Append a node; the name of its output, or a tuple of them."""
        made = [self.name(op) for _ in range(outputs)]
        self.nodes.append(
            helper.make_node(op, list(inputs), made, name or f"{made[0]}_node", domain=domain, **attributes)
        )
        return made[0] if outputs == 1 else tuple(made)

    def declare(self, name: str, shape: Dims) -> str:
        """Have the file state the shape of a tensor in between."""
        self.declared.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))
        return name

    # ------------------------------------------------------------------ layers

    def conv(
        self, x: str, inputs: int, outputs: int, kernel: int = 3, *, rank: int = 2, bias: bool = True, **kw: Any
    ) -> str:
        """A convolution that keeps the positions (unless `strides` are given)."""
        w = self.weight(outputs, inputs // kw.get("group", 1), *[kernel] * rank)
        operands = [x, w, self.weight(outputs, low=-0.5)] if bias else [x, w]
        return str(self.node("Conv", *operands, **{"pads": [kernel // 2] * 2 * rank, **kw}))

    def batch_norm(self, x: str, channels: int) -> str:
        parameters = [self.weight(channels, low=low) for low in (0.5, -0.5, -0.5, 0.5)]
        return str(self.node("BatchNormalization", x, *parameters))

    def matmul(self, x: str, inputs: int, outputs: int) -> str:
        return str(self.node("MatMul", x, self.constant(self.normal(inputs, outputs) / inputs**0.5)))

    def linear(self, x: str, inputs: int, outputs: int) -> str:
        """MatMul and bias, as exported for inputs of rank 3 and more."""
        return str(self.node("Add", self.matmul(x, inputs, outputs), self.weight(outputs, low=-0.5)))

    def gemm(self, x: str, inputs: int, outputs: int) -> str:
        return str(self.node("Gemm", x, self.weight(outputs, inputs), self.weight(outputs, low=-0.5), transB=1))

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, dtype=np.int64))

    def normal(self, *shape: int) -> Array:
        return self.rng.standard_normal(shape).astype(np.float32)

    def reshape(self, x: str, *shape: int) -> str:
        return str(self.node("Reshape", x, self.ints(*shape)))

    def transpose(self, x: str, *perm: int) -> str:
        return str(self.node("Transpose", x, perm=list(perm)))

    # ------------------------------------------------------------------ bodies

    def inside(self) -> "GraphBuilder":
        """A builder for the body of an If, Loop or Scan, whose names are unique in the whole model."""
        inner = GraphBuilder(self.opset)
        inner.rng, inner._taken = self.rng, self._taken
        return inner

    def body(self, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]) -> onnx.GraphProto:
        return helper.make_graph(self.nodes, self.name("body"), inputs, outputs, self.initializers)

    # ------------------------------------------------------------------ the whole

    def model(self, *outputs: str, kinds: Iterable[int] = (), extra_domains: Iterable[str] = ()) -> onnx.ModelProto:
        """The checked model; `kinds` are the element types of the outputs, float where left out."""
        types = [*kinds, *[TensorProto.FLOAT] * len(outputs)]
        declared = [helper.make_tensor_value_info(o, kind, None) for o, kind in zip(outputs, types, strict=False)]
        inputs = list(self.inputs)
        if self.ir_version < 4:
            inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in self.initializers]
        graph = helper.make_graph(self.nodes, "graph", inputs, declared, self.initializers, value_info=self.declared)
        domains = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(d, 1) for d in extra_domains)]
        model = helper.make_model(graph, opset_imports=domains, ir_version=self.ir_version, producer_name="tests")
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        for value, known in zip(model.graph.output, inferred.graph.output, strict=True):
            if known.type.tensor_type.elem_type:
                value.CopyFrom(known)
        if all(o.type.tensor_type.HasField("shape") for o in model.graph.output) and not extra_domains:
            onnx.checker.check_model(model)
        return model
