"""The masked original: what a pruned graph has to compute, as a graph of the original's own nodes.

The removed channels' outgoing weights are set to zero, written as a product of the activation with a mask of ones and
zeros in front of every node that sums over channels. It uses the labels but none of the surgery's slicing, renumbering
or rewriting.
"""

import copy

import numpy as np
import onnx
from onnx import numpy_helper

from worker.engine.graph.analysis import Analysis, Mask
from worker.engine.graph.labels import Labels
from worker.engine.graph.propagation import Contraction, Waiver


def masked_original(analysis: Analysis, alive: Mask) -> onnx.ModelProto:
    """The original model with the removed channels silenced wherever a node sums over them."""
    model = copy.deepcopy(analysis.graph.model)
    silenced: dict[int, list[Contraction]] = {}
    for contraction in analysis.propagation.contractions:
        if not alive[contraction.labels].all():
            silenced.setdefault(contraction.node, []).append(contraction)
    waived = {w.node: w for w in analysis.propagation.waivers if not alive[w.labels].all()}
    made: list[onnx.TensorProto] = []

    def edit(index: int, node: onnx.NodeProto, nodes: list[onnx.NodeProto]) -> None:
        nodes.extend(_silence(analysis, node, c, alive, made) for c in silenced.get(index, ()))
        if index in waived:
            before, after = _restrict(analysis, node, waived[index], alive, made)
            nodes.extend([*before, node, *after])
        else:
            nodes.append(node)

    nodes = analysis.graph.rebuild(edit)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(made)
    model.ir_version = max(model.ir_version, 4)  # masks are initializers that are no inputs
    return model


def maskable_original(analysis: Analysis) -> tuple[onnx.ModelProto, dict[str, Labels]]:
    """The original with a mask of ones in front of every node that sums over prunable channels, as an initializer: the
    model, and the label of each element of each mask by its name. Those of sums in the bodies of control flow stand
    there, too."""
    model = copy.deepcopy(analysis.graph.model)
    prunable = np.zeros(len(analysis.roots), dtype=bool)
    prunable[np.concatenate([group.units for group in analysis.groups] or [np.zeros(0, dtype=np.int64)])] = True
    contractions: dict[int, list[Contraction]] = {}
    for contraction in analysis.propagation.contractions:
        if len(contraction.labels) > 1 and prunable[analysis.roots[contraction.labels]].any():
            contractions.setdefault(contraction.node, []).append(contraction)
    made: list[onnx.TensorProto] = []
    labels: dict[str, Labels] = {}
    ones = np.ones(len(analysis.roots), dtype=bool)

    def edit(index: int, node: onnx.NodeProto, nodes: list[onnx.NodeProto]) -> None:
        for contraction in contractions.get(index, ()):
            nodes.append(_silence(analysis, node, contraction, ones, made))
            labels[nodes[-1].name] = contraction.labels
        nodes.append(node)

    nodes = analysis.graph.rebuild(edit)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(made)
    model.ir_version = max(model.ir_version, 4)
    return model, labels


def _silence(
    analysis: Analysis, node: onnx.NodeProto, contraction: Contraction, alive: Mask, made: list[onnx.TensorProto]
) -> onnx.NodeProto:
    """x * mask in front of the node; a quantised x is set to its zero point where the mask is zero."""
    name = node.input[contraction.position]  # already masked along another axis, perhaps
    unmasked = analysis.graph.nodes[contraction.node].input[contraction.position]
    rank = len(analysis.facts.shapes[unmasked])
    stem = f"{name}_mask_{contraction.node}_{contraction.position}_{contraction.axis}"
    shape = [-1 if axis == contraction.axis else 1 for axis in range(rank)]
    mask = alive[contraction.labels].reshape(shape)
    node.input[contraction.position] = f"{stem}_applied"
    zero = _ZERO_POINTS.get((node.op_type, contraction.position))
    if zero is None:
        made.append(numpy_helper.from_array(mask.astype(_dtype(analysis, unmasked)), stem))
        return onnx.helper.make_node("Mul", [name, stem], [f"{stem}_applied"], stem)
    made.append(numpy_helper.from_array(mask, stem))
    if len(node.input) > zero and node.input[zero]:
        zero_point = node.input[zero]
    else:
        zero_point = f"{stem}_zero"
        made.append(numpy_helper.from_array(np.zeros((), np.uint8), zero_point))
    return onnx.helper.make_node("Where", [stem, name, zero_point], [f"{stem}_applied"], stem)


_ZERO_POINTS = {
    ("ConvInteger", 0): 2,
    ("QLinearConv", 0): 2,
    ("MatMulInteger", 0): 2,
    ("MatMulInteger", 1): 3,
    ("QLinearMatMul", 0): 2,
    ("QLinearMatMul", 3): 5,
}
"""(op, quantised input) -> the input that holds its zero point."""


def _restrict(
    analysis: Analysis, node: onnx.NodeProto, waiver: Waiver, alive: Mask, made: list[onnx.TensorProto]
) -> tuple[list[onnx.NodeProto], list[onnx.NodeProto]]:
    """Let a statistic run over the kept channels alone: gather them, compute, and spread the result out again. What
    stands in the removed places is never read."""
    keep = alive[waiver.labels]
    stem = f"restricted_{waiver.node}"
    kept = np.flatnonzero(keep).astype(np.int64)
    spread = np.where(keep, np.cumsum(keep) - 1, 0).astype(np.int64)
    made.extend([numpy_helper.from_array(kept, f"{stem}_kept"), numpy_helper.from_array(spread, f"{stem}_spread")])
    rank = len(analysis.facts.shapes[node.input[0]])
    before: list[onnx.NodeProto] = []
    for position in (0, *waiver.affine):
        name = node.input[position]
        own = len(analysis.facts.shapes[name])
        axis = waiver.axis - rank + own if own > 1 else 0  # a vector is the channels', wherever these stand
        if axis < 0 or own == 0 or analysis.facts.shapes[name][axis] == 1:
            continue
        gathered = f"{stem}_{position}"
        before.append(onnx.helper.make_node("Gather", [name, f"{stem}_kept"], [gathered], gathered, axis=axis))
        node.input[position] = gathered
    if not waiver.keeps_axis:
        return before, []
    result, node.output[0] = node.output[0], f"{stem}_result"
    after = onnx.helper.make_node(
        "Gather", [node.output[0], f"{stem}_spread"], [result], f"{stem}_spread_out", axis=waiver.axis
    )
    return before, [after]


def _dtype(analysis: Analysis, name: str) -> np.dtype[np.generic]:
    """The element type of an activation; where it is not known, that of the model's float weights."""
    if analysis.facts.types.get(name):
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(analysis.facts.types[name]))
    for tensor in analysis.graph.constants.values():
        if tensor.data_type in (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE):
            return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    return np.dtype(np.float32)
