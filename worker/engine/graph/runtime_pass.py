"""One run of the model in ONNX Runtime that tells the shape of every tensor, where inference cannot.

The run holds what plain inference holds, and not the whole of the activations: a tensor leaves it as its `Shape`, and
only integers that follow from constants and shapes leave it as themselves. Large weights are fed instead of stored,
so that the model is not copied.
"""

import math

import numpy as np
import onnx
from onnx import TensorProto

from worker.engine.errors import EngineError
from worker.engine.graph.inputs import Sizes, random_inputs
from worker.engine.graph.onnx_graph import RANDOM_OPS, Array, OnnxGraph, bodies_of
from worker.engine.graph.runtime import RUNTIME_ERRORS, Session

_INTEGERS = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)
_FED_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_FED_FROM = 4096
"""Weights of fewer elements stay in the model: the scales of a Resize, say, must be constants."""


class RuntimePass:
    """The graph, ready to be run at one input size after the other.

    `types` are the element types of its tensors as far as inference found them. Raises EngineError where ONNX Runtime
    refuses the model.
    """

    def __init__(self, graph: OnnxGraph, types: dict[str, int]) -> None:
        self._graph = graph
        determinate = _determinate(graph)
        self._whole: list[str] = []
        self._told: dict[str, str] = {}  # output that is a shape -> tensor
        for name, index in graph.producer.items():
            if graph.scope[index] or name in graph.constants:
                continue
            element = types.get(name)
            if not element or (name in determinate and element in _INTEGERS):
                self._whole.append(name)  # one of unknown type may be a sequence, which has no shape
            else:
                self._told[f"espalier_shape_{len(self._told)}"] = name
        self.determinate = determinate
        self._weights = _large_weights(graph)
        try:
            self._session = Session(self._model(), optimised=False)
        except RUNTIME_ERRORS:  # some kernel may want its weights to be constants
            self._weights = {}
            self._session = self._complete()

    def run(self, sizes: Sizes) -> tuple[dict[str, tuple[int, ...]], dict[str, Array]]:
        """Shapes by tensor, and the tensors that came out as themselves. Raises what ONNX Runtime raises."""
        feeds = random_inputs(self._graph, sizes, seed=0)
        feeds |= {name: self._graph.array(name) for name in self._weights}
        shapes: dict[str, tuple[int, ...]] = {}
        whole: dict[str, Array] = {}
        for name, value in zip(self._session.outputs, self._session.run(feeds), strict=True):
            if not isinstance(value, np.ndarray):
                continue  # sequences and maps have no shape
            if name in self._told:
                shapes[self._told[name]] = tuple(int(size) for size in value)
            else:
                shapes[name], whole[name] = value.shape, value
        return shapes, whole

    def _complete(self) -> Session:
        try:
            return Session(self._model(), optimised=False)
        except RUNTIME_ERRORS as error:
            raise EngineError(
                "model_does_not_load",
                f"ONNX Runtime refuses the model: {error}",
                "Check the model with onnx.checker and onnxruntime, then upload it again.",
            ) from error

    def _model(self) -> onnx.ModelProto:
        """The graph without its large weights, which become inputs, and with what is to be told as outputs."""
        original = self._graph.model
        model = onnx.ModelProto(ir_version=min(original.ir_version, 10))
        model.opset_import.extend(original.opset_import)
        model.functions.extend(original.functions)
        graph = model.graph
        graph.name = original.graph.name or "shapes"
        graph.node.extend(node for node in original.graph.node if not self._weights.keys() & set(node.output))
        graph.initializer.extend(t for t in original.graph.initializer if t.name not in self._weights)
        graph.sparse_initializer.extend(original.graph.sparse_initializer)
        graph.input.extend(value for value in original.graph.input if value.name not in self._weights)
        for name, tensor in self._weights.items():
            graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))
        for output, name in self._told.items():
            graph.node.append(onnx.helper.make_node("Shape", [name], [output], output))
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in (*self._whole, *self._told))
        return model


def _large_weights(graph: OnnxGraph) -> dict[str, TensorProto]:
    """The float constants of the main graph that are worth not copying."""
    bodies = {t.name for body in graph.bodies for t in body.graph.initializer}
    return {
        name: tensor
        for name, tensor in graph.constants.items()
        if tensor.data_type in _FED_TYPES
        and math.prod(tensor.dims) >= _FED_FROM
        and name not in bodies
        and (name not in graph.producer or graph.scope[graph.producer[name]] == 0)
    }


def _determinate(graph: OnnxGraph) -> set[str]:
    """Names of the tensors that follow from constants and shapes alone."""
    names = {"", *graph.constants}
    for node in graph.nodes:
        of_shapes = node.op_type in ("Shape", "Size")
        if of_shapes or (names.issuperset(node.input) and not bodies_of(node) and node.op_type not in RANDOM_OPS):
            names.update(node.output)
    return names
