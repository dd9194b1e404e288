"""Gates: a factor of one for what each layer reads, so that a loss can be differentiated by the channels of a width."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from worker.engine.criteria.places import Place, is_exposable
from worker.engine.graph.analysis import Analysis


def gated(analysis: Analysis) -> tuple[onnx.ModelProto, tuple[Place, ...]]:
    """The model in which what a layer sums over is a tensor of its own, and these tensors.

    An activation has an effect through every layer that reads it, and through those that a shortcut leads to: the
    derivative by the activation itself has all of them in it, so that those of a residual stream cannot be added up.
    """
    graph = analysis.graph
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    readers = {node.output[0]: node for node in model.graph.node if node.output}
    multiplied: dict[str, list[onnx.NodeProto]] = {}
    ones: dict[int, onnx.TensorProto] = {}
    places = []
    for contraction in analysis.propagation.contractions:
        node = graph.nodes[contraction.node]
        name = node.input[contraction.position]
        if graph.scope[contraction.node] != 0 or not is_exposable(analysis, name):
            continue
        place = Place(f"{node.output[0]}/gated{contraction.position}", contraction.axis, contraction.labels)
        places.append(place)
        reader = readers[node.output[0]]
        if reader.input[contraction.position] == place.tensor:  # it sums over two axes
            continue
        elem_type = analysis.facts.types.get(name, onnx.TensorProto.FLOAT)
        one = np.ones((), helper.tensor_dtype_to_np_dtype(elem_type))
        ones[elem_type] = numpy_helper.from_array(one, f"gate/{elem_type}")
        gate = helper.make_node("Mul", [name, ones[elem_type].name], [place.tensor])
        multiplied.setdefault(node.output[0], []).append(gate)
        reader.input[contraction.position] = place.tensor
    nodes = [each for node in model.graph.node for each in (*multiplied.get(_first_output(node), ()), node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(ones.values())
    return model, tuple(places)


def _first_output(node: onnx.NodeProto) -> str:
    return node.output[0] if node.output else ""
