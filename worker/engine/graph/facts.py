"""Concrete facts about a graph's tensors: their shapes at one input size, and the values of small integer tensors.

Static shape inference with the integer chains folded answers for most models in milliseconds; where it leaves a
hole, one run in ONNX Runtime answers for all of them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from worker.engine.errors import EngineError
from worker.engine.graph.bodies import observe_bodies
from worker.engine.graph.folding import fold
from worker.engine.graph.inputs import Sizes, candidate_sizes, declared_shape, random_inputs, with_batch
from worker.engine.graph.onnx_graph import Array, OnnxGraph, attribute, bodies_of, ints_attribute
from worker.engine.graph.runtime import RUNTIME_ERRORS
from worker.engine.graph.runtime_pass import RuntimePass

SMALL_VALUE = 4096
"""Integer tensors up to this many elements have their values kept: enough for any shape, index or padding list."""

_INT_TYPES = {TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL}


@dataclass
class Facts:
    """Shapes, element types and small integer values of the graph's tensors at `sizes`. Only values that follow from
    constants and shapes are facts: what depends on the data is none."""

    sizes: Sizes
    batch: int
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    values: dict[str, Array] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)


def observe(graph: OnnxGraph) -> Facts:
    """Shapes and integer values at the first input size that works. Raises EngineError where ONNX Runtime runs none."""
    static = _observe_statically(graph)
    if static is not None:
        return static
    failure: Exception | None = None
    types = inferred_types(graph)
    runtime_pass = RuntimePass(graph, types)
    for sizes, batch in candidate_sizes(graph):
        try:
            return _run(graph, runtime_pass, types, sizes, batch)
        except RUNTIME_ERRORS as error:
            failure = failure or error
    raise EngineError(
        "model_does_not_run",
        f"ONNX Runtime cannot run the model on random inputs: {failure}",
        "Check that the model runs in onnxruntime, or give its inputs fixed shapes.",
    )


# ---------------------------------------------------------------------------------------------- static inference


def _observe_statically(graph: OnnxGraph) -> Facts | None:
    """Facts by onnx.shape_inference, alternated with folding of integer chains; None where a hole remains."""
    if any(bodies_of(node) for node in graph.nodes):
        return None
    for sizes, batch in candidate_sizes(graph):
        facts = Facts(sizes, batch)
        weightless = without_weights(graph, sizes)
        for _ in range(4):  # each round lets the values found so far make further shapes known
            try:
                inferred = onnx.shape_inference.infer_shapes(weightless, strict_mode=True, data_prop=True)
            except onnx.shape_inference.InferenceError:
                break
            known = len(facts.values)
            facts.shapes = _known_shapes(inferred, graph)
            facts.types.update(_known_types(inferred))
            facts.values = fold(graph, facts.shapes)
            facts.shapes.update({name: value.shape for name, value in facts.values.items()})
            if all(name in facts.shapes for node in graph.nodes for name in node.output if name):
                if any(_looks_beyond(node, facts.shapes) for node in graph.nodes):
                    break
                return facts
            if len(facts.values) == known:
                break
            _replace_by_constants(weightless, facts.values)
        if not any(d for d in sizes.values()):
            break
    return None


def _looks_beyond(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a kernel is larger than the maps that it looks at: inference rounds that up to one position."""
    automatic = attribute(node, "auto_pad", b"NOTSET") in (b"SAME_UPPER", b"SAME_LOWER")
    if node.op_type not in ("Conv", "MaxPool", "AveragePool", "LpPool") or automatic:
        return False
    sides = shapes[node.input[0]][2:]
    kernel = ints_attribute(node, "kernel_shape") or shapes[node.input[1]][2:]
    dilations = ints_attribute(node, "dilations") or [1] * len(sides)
    pads = ints_attribute(node, "pads") or [0] * 2 * len(sides)
    padded = [side + before + after for side, before, after in zip(sides, pads, pads[len(sides) :], strict=False)]
    return any(side < d * (k - 1) + 1 for side, k, d in zip(padded, kernel, dilations, strict=True))


def fixed_sizes(graph: OnnxGraph) -> dict[str, tuple[int | None, ...]]:
    """The sizes of tensors as far as they are the same for all inputs, by static inference."""
    try:
        inferred = onnx.shape_inference.infer_shapes(without_weights(graph))
    except onnx.shape_inference.InferenceError:
        return {}
    found = {}
    for value in (*inferred.graph.input, *inferred.graph.value_info):
        declared = declared_shape(value)
        if declared is not None:
            found[value.name] = tuple(size if isinstance(size, int) else None for size in declared)
    return found


def without_weights(graph: OnnxGraph, sizes: Sizes | None = None) -> onnx.ModelProto:
    """The model without the bytes of its larger constants, small enough to infer quickly; with inputs of these sizes,
    or as they are declared."""
    slim = onnx.ModelProto(ir_version=max(graph.model.ir_version, 4))
    slim.opset_import.extend(graph.model.opset_import)
    slim.graph.name = "shapes"
    for name, tensor in graph.constants.items():
        if name in graph.producer:
            continue
        if tensor.data_type in _INT_TYPES or math.prod(tensor.dims) <= 16:
            slim.graph.initializer.append(tensor)
        else:
            slim.graph.initializer.append(TensorProto(name=name, data_type=tensor.data_type, dims=tensor.dims))
    slim.graph.node.extend(graph.proto.node)
    for value in graph.inputs:
        concrete = slim.graph.input.add()
        concrete.CopyFrom(value)
        if sizes is None:
            continue
        del concrete.type.tensor_type.shape.dim[:]
        for size in sizes[value.name]:
            concrete.type.tensor_type.shape.dim.add().dim_value = size
    for name in graph.outputs:
        slim.graph.output.add().name = name
    return slim


def _known_shapes(inferred: onnx.ModelProto, graph: OnnxGraph) -> dict[str, tuple[int, ...]]:
    shapes = {name: tuple(t.dims) for name, t in graph.constants.items()}
    for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        declared = declared_shape(value)
        if declared is not None and all(isinstance(d, int) for d in declared):
            shapes[value.name] = tuple(d for d in declared if isinstance(d, int))
    return shapes


def _known_types(inferred: onnx.ModelProto) -> dict[str, int]:
    values = (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def _replace_by_constants(model: onnx.ModelProto, values: dict[str, Array]) -> None:
    """Turn the makers of known values into initializers, so that inference sees the values."""
    made = [n for n in model.graph.node if len(n.output) == 1 and n.output[0] in values and n.op_type != "Constant"]
    for node in made:
        model.graph.node.remove(node)
        model.graph.initializer.append(numpy_helper.from_array(values[node.output[0]], node.output[0]))


# ---------------------------------------------------------------------------------------------- one real pass


def inferred_types(graph: OnnxGraph) -> dict[str, int]:
    """Element types as far as inference knows the ops: it finds them also where it finds no shapes."""
    sizes, _ = next(iter(candidate_sizes(graph)))
    try:
        inferred = onnx.shape_inference.infer_shapes(without_weights(graph, sizes))
    except onnx.shape_inference.InferenceError:
        return {}
    return {name: element for name, element in _known_types(inferred).items() if element}


def _run(graph: OnnxGraph, runtime_pass: RuntimePass, types: dict[str, int], sizes: Sizes, batch: int) -> Facts:
    facts = Facts(sizes, batch, {name: tuple(t.dims) for name, t in graph.constants.items()} | dict(sizes))
    facts.types = types | {i.name: i.type.tensor_type.elem_type for i in graph.inputs}
    shapes, whole = runtime_pass.run(sizes)
    facts.shapes.update(shapes)
    for name, value in whole.items():
        facts.types[name] = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        if value.dtype.kind in "ib" and value.size <= SMALL_VALUE and name in runtime_pass.determinate:
            facts.values[name] = value
    facts.values.update(
        {n: graph.array(n) for n, t in graph.constants.items() if t.data_type in _INT_TYPES and np.prod(t.dims) <= 4096}
    )
    facts.shapes.update(observe_bodies(graph, facts.shapes, facts.types))
    return facts


def sample_inputs(model: onnx.ModelProto, seed: int = 0, batch: int | None = None) -> dict[str, Array]:
    """Random inputs at a size on which the model runs; `batch` overrides a dynamic batch dimension."""
    graph = OnnxGraph(model)
    sizes = observe(graph).sizes
    return random_inputs(graph, with_batch(graph, sizes, batch) if batch else sizes, seed)
