"""Ops that choose: where candidates are alike but for rounding, two equal graphs choose differently.

The last bits of a sum depend on how many zeros are in it, so that a pruned graph and the masked original, or a graph in
two runtimes, may order near ties in another way, and all that is gathered by the choice is in another place. Given the
same choice they can be compared: both what the ops choose among and what is made of the choice.
"""

from collections.abc import Mapping

import onnx

from worker.engine.graph.onnx_graph import Array, OnnxGraph

_INDICES = {"ArgMax": 0, "ArgMin": 0, "NonMaxSuppression": 0, "TopK": 1}
"""Ops -> which of their outputs is indices."""


def choices(graph: OnnxGraph) -> dict[str, int]:
    """Indices that ops of the main graph choose, and the node that makes each."""
    found = {}
    for index, node in enumerate(graph.nodes):
        position = _INDICES.get(node.op_type)
        if position is not None and not graph.scope[index] and len(node.output) > position and node.output[position]:
            found[node.output[position]] = index
    return found


def with_given_choices(model: onnx.ModelProto, given: Mapping[str, Array]) -> onnx.ModelProto:
    """A copy that reads these indices as inputs. The ops still choose, and their other outputs are used; indices that
    were outputs of the model are none any more."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        for position, name in enumerate(node.output):
            if name in given:
                node.output[position] = f"{name}/chosen"
    for values in (copy.graph.output, copy.graph.value_info):
        kept = [value for value in values if value.name not in given]
        del values[:]
        values.extend(kept)
    for name, value in given.items():
        element = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        copy.graph.input.append(onnx.helper.make_tensor_value_info(name, element, value.shape))
    return copy
