"""Ops that choose: where candidates are alike but for rounding, two equal graphs choose differently.

The last bits of a sum depend on how many zeros are in it, so that a pruned graph and the masked original, or a graph in
two runtimes, may order near ties in another way, and all that is gathered by the choice is in another place. Given the
same choice they can be compared: both what the ops choose among and what is made of the choice. Where NonZero finds the
places that pass a threshold, their number is a matter of rounding, too: there comparisons choose.
"""

from collections.abc import Mapping

import numpy as np
import onnx

from worker.engine.graph.analysis import LAYER_OPS
from worker.engine.graph.onnx_graph import FLOATS, Array, OnnxGraph

COMPARISONS = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})
_INDICES = {"ArgMax": 0, "ArgMin": 0, "NonMaxSuppression": 0, "TopK": 1}
"""Ops -> which of their outputs is indices."""


def choices(graph: OnnxGraph, types: Mapping[str, int]) -> dict[str, int]:
    """What ops of the main graph choose, and the node that makes each choice. `types`: the tensors' element types."""
    found = {graph.nodes[index].output[0]: index for index in sorted(_thresholds(graph, types))}
    for index, node in enumerate(graph.nodes):
        position = _INDICES.get(node.op_type)
        if position is not None and not graph.scope[index] and len(node.output) > position and node.output[position]:
            found[node.output[position]] = index
    return found


def own_choice(name: str) -> str:
    """What a graph that reads this choice would have chosen itself."""
    return f"{name}/chosen"


def _thresholds(graph: OnnxGraph, types: Mapping[str, int]) -> set[int]:
    """The NonZeros of numbers, and the comparisons of numbers that lie between the last layer and a NonZero."""
    left = [index for index, node in enumerate(graph.nodes) if node.op_type == "NonZero" and not graph.scope[index]]
    seen: set[int] = set()

    def numbers(index: int) -> bool:
        computed = [name for name in graph.nodes[index].input if name in graph.producer]
        return any(types.get(name) in FLOATS for name in computed)

    while left:
        index = left.pop()
        node = graph.nodes[index]
        if index in seen or graph.scope[index] or node.op_type in LAYER_OPS:
            continue
        seen.add(index)
        left.extend(graph.producer[name] for name in node.input if name in graph.producer)
    return {index for index in seen if graph.nodes[index].op_type in {*COMPARISONS, "NonZero"} and numbers(index)}


def with_given_choices(model: onnx.ModelProto, given: Mapping[str, Array]) -> onnx.ModelProto:
    """A copy that reads these choices as inputs. The ops still choose, and their other outputs are used; choices that
    were outputs of the model are none any more."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        for position, name in enumerate(node.output):
            if name in given:
                node.output[position] = own_choice(name)
    for values in (copy.graph.output, copy.graph.value_info):
        kept = [value for value in values if value.name not in given]
        del values[:]
        values.extend(kept)
    for name, value in given.items():
        element = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        copy.graph.input.append(onnx.helper.make_tensor_value_info(name, element, value.shape))
    return copy


def compares_alike(
    graph: OnnxGraph, node: onnx.NodeProto, pairs: Mapping[str, tuple[Array, Array]], given: Array, own: Array
) -> bool:
    """Whether what a graph would have chosen itself by this comparison is what it was given, but for numbers that are
    no further apart than the two graphs are. `pairs`: what these computed, by the names of the tensors."""
    sides, moved = [], 0.0
    for name in node.input:
        if name in pairs:
            want, got = pairs[name]
            if want.shape != got.shape:
                return False
            sides.append(want)
            moved += float(np.abs(want - got).max(initial=0.0))
        elif name in graph.constants and graph.array(name).size == 1:
            sides.append(graph.array(name))
    if len(sides) < len(node.input) or given.shape != own.shape:
        return False
    apart = np.broadcast_to(np.abs(sides[0] - sides[1]), given.shape)
    return bool(apart[given != own].max(initial=0.0) <= moved)
