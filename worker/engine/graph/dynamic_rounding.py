"""Layers on ranges taken from each input, as the float layers that they stand for.

DynamicQuantizeLinear rounds to one of 255 levels: a difference in the last bit of what it reads, or of the range that
it takes, becomes one of a whole level.
"""

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from worker.engine.graph.onnx_graph import captured_names, int_attribute

_FLOAT_OPS = {"ConvInteger": "Conv", "MatMulInteger": "MatMul"}
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


def drop_dynamic_rounding(graph: onnx.GraphProto) -> set[str]:
    """Let activations pass each DynamicQuantizeLinear unchanged, with a scale of one, where only layers with stored
    weights read them (perhaps behind the mask of a proof), and only Casts to floats their sums. In place; the names of
    the tensors whose types that changes."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    stored |= {
        n.output[0]: a.t for n in graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"
    }
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in (*node.input, *captured_names(node)):
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}

    def layers(levels: str, zero: str) -> list[onnx.NodeProto] | None:
        """The layers that read these levels; None where anything else does."""
        found: list[onnx.NodeProto] = []
        for node in readers.get(levels, ()):
            if node.op_type == "Where" and node.input[1:] == [levels, zero]:
                behind = layers(node.output[0], zero)
                if behind is None:
                    return None
                found.extend(behind)
            elif node.op_type in _FLOAT_OPS and _reads(node, levels, zero, stored) and _is_cast(node, readers, outputs):
                found.append(node)
            else:
                return None
        return found

    changed: set[str] = set()
    for node in [node for node in graph.node if node.op_type == "DynamicQuantizeLinear"]:
        levels, scale, zero = node.output
        read_by = layers(levels, zero)
        others = [
            reader for reader in readers.get(zero, ()) if reader.op_type != "Where" and reader not in (read_by or ())
        ]
        if not read_by or others or not outputs.isdisjoint(node.output):
            continue
        node.op_type = "Identity"
        del node.output[1:]
        for name, value in ((scale, 1.0), (zero, 0.0)):
            graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
        for layer in read_by:
            weight = f"{layer.output[0]}/weight"
            graph.initializer.append(numpy_helper.from_array(_weight(layer, stored), weight))
            layer.op_type = _FLOAT_OPS[layer.op_type]
            layer.input[:] = [layer.input[0], weight]
            changed.add(layer.output[0])
        changed.update((levels, zero))
    return changed


def _reads(node: onnx.NodeProto, levels: str, zero: str, stored: dict[str, TensorProto]) -> bool:
    given, weight, *zeros = node.input
    return given == levels and zeros[:1] == [zero] and all(name in stored for name in (weight, *zeros[1:]))


def _is_cast(node: onnx.NodeProto, readers: dict[str, list[onnx.NodeProto]], outputs: set[str]) -> bool:
    behind = readers.get(node.output[0], ())
    casts = [reader for reader in behind if reader.op_type == "Cast" and int_attribute(reader, "to", 0) in _FLOATS]
    return len(casts) == len(behind) and node.output[0] not in outputs


def _weight(layer: onnx.NodeProto, stored: dict[str, TensorProto]) -> np.ndarray:
    """Without its zero point: one number, as ONNX Runtime asks of a ConvInteger, or one for each column."""
    weight, *zeros = (
        numpy_helper.to_array(stored[name]).astype(np.float32) for name in (layer.input[1], *layer.input[3:])
    )
    return np.asarray(weight - zeros[0]) if zeros else weight
