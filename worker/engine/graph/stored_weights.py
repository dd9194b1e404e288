"""Weights that stand in Constant nodes, as Paddle's converter writes them, made initializers like all others."""

import onnx

from worker.engine.graph.onnx_graph import FLOATS, attribute

_INITIALIZERS_ALONE = 4
"""The IR version from which an initializer need not be an input as well."""


def with_initializers(model: onnx.ModelProto, *, scalars: bool = False) -> onnx.ModelProto:
    """The model with floating-point Constants as initializers, those of one number only with `scalars`, or the model
    itself where there are none. Constants in the bodies of control flow stay."""
    lifted = {node.output[0] for node in model.graph.node if _holds_weights(node, scalars)}
    if not lifted or model.ir_version < _INITIALIZERS_ALONE:
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    for node in model.graph.node:
        if node.output and node.output[0] in lifted:
            tensor = result.graph.initializer.add()
            tensor.CopyFrom(attribute(node, "value"))
            tensor.name = node.output[0]
        else:
            result.graph.node.append(node)
    return result


def _holds_weights(node: onnx.NodeProto, scalars: bool) -> bool:
    value = attribute(node, "value") if node.op_type == "Constant" else None
    return value is not None and value.data_type in FLOATS and (scalars or any(size > 1 for size in value.dims))
