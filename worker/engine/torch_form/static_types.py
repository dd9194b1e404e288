"""Element types and shapes of a graph's values as far as static inference knows them, without touching the weights."""

from __future__ import annotations

import onnx

from worker.engine.errors import EngineError
from worker.engine.torch_form.operation import StaticType

_LARGE = 1024  # elements; smaller constants may be shapes, which inference wants to see


def static_types(model: onnx.ModelProto) -> dict[str, StaticType]:
    """By value name. Values that inference cannot reach are absent. Raises EngineError where the model contradicts
    itself."""
    light = _without_weights(model)
    try:
        inferred = onnx.shape_inference.infer_shapes(light, data_prop=True).graph
    except onnx.shape_inference.InferenceError as error:
        raise EngineError(
            "contradictory_shapes",
            f"The model's shapes and types cannot be inferred, or contradict what it declares: {error}.",
            "Export the model again, or take the declared shapes of inner values (value_info) out of it.",
        ) from error
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    types = {value.name: _static_type(value) for value in values}
    types.update((t.name, StaticType(t.data_type, tuple(t.dims))) for t in inferred.initializer if t.name not in types)
    return types


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose large constants are graph inputs of the same type."""
    light = onnx.ModelProto(ir_version=max(model.ir_version, 4), opset_import=model.opset_import)
    light.functions.extend(model.functions)
    graph, source = light.graph, model.graph
    graph.name = source.name or "graph"
    graph.input.extend(source.input)
    graph.output.extend(source.output)
    graph.value_info.extend(source.value_info)
    declared = {value.name for value in source.input}
    for node in source.node:
        attribute = node.attribute[0] if node.op_type == "Constant" and len(node.attribute) == 1 else None
        if attribute is not None and attribute.name == "value" and _is_large(attribute.t):
            graph.input.append(_typed(node.output[0], attribute.t))
        else:
            graph.node.append(node)
    for tensor in source.initializer:
        if not _is_large(tensor):
            graph.initializer.append(tensor)
        elif tensor.name not in declared:
            graph.input.append(_typed(tensor.name, tensor))
    return light


def _is_large(tensor: onnx.TensorProto) -> bool:
    elements = 1
    for dim in tensor.dims:
        elements *= dim
    return elements > _LARGE


def _typed(name: str, tensor: onnx.TensorProto) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims))


def _static_type(value: onnx.ValueInfoProto) -> StaticType:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        return StaticType()
    shape = None
    if kind.HasField("shape"):
        shape = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in kind.shape.dim)
    return StaticType(kind.elem_type or None, shape)
