"""Gates: a factor of one for what each layer reads, so that a loss can be differentiated by the channels of a width."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from worker.engine.criteria.places import Place, made_by, place_of
from worker.engine.criteria.width import Width


def gated(widths: Sequence[Width]) -> tuple[onnx.ModelProto, tuple[Place, ...]]:
    """The model in which every layer reads an activation of its own, and these activations.

    An activation has an effect through every layer that reads it, and through those that a shortcut leads to: the
    derivative by the activation itself has all of them in it, so that those of a residual stream cannot be added up.
    The gate stands where the activation is made, so that images are apart; pooling and layout behind it are repeated.
    """
    analysis = widths[0].analysis
    graph = analysis.graph
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    readers = {tuple(node.output): node for node in model.graph.node}
    inserted: dict[tuple[str, ...], list[onnx.NodeProto]] = {}
    ones: dict[int, onnx.TensorProto] = {}
    places: dict[str, Place] = {}
    for contraction in analysis.propagation.contractions:
        node, position = graph.nodes[contraction.node], contraction.position
        width = next((each for each in widths if (each.positions(contraction.labels) >= 0).any()), None)
        if width is None or graph.scope[contraction.node] != 0:
            continue
        name, behind = made_by(width, node.input[position])
        place = place_of(width, name)
        reading = f"/read/{contraction.node}/{position}"
        if place is None or f"{name}{reading}" in places:  # a layer that sums over two axes reads once
            continue
        elem_type = analysis.facts.types.get(name, onnx.TensorProto.FLOAT)
        one = np.ones((), helper.tensor_dtype_to_np_dtype(elem_type))
        ones[elem_type] = numpy_helper.from_array(one, f"gate/{elem_type}")
        chain = [helper.make_node("Mul", [name, ones[elem_type].name], [f"{name}{reading}"])]
        for each in behind:
            again = onnx.NodeProto()
            again.CopyFrom(each)
            again.ClearField("name")
            again.input[0] = chain[-1].output[0]
            again.output[:] = [f"{each.output[0]}{reading}"]
            chain.append(again)
        key = tuple(node.output)
        inserted.setdefault(key, []).extend(chain)
        readers[key].input[position] = chain[-1].output[0]
        one_sample = analysis.labels_of_one_sample(name, place.axis)
        labels = place.labels if one_sample is None else one_sample
        places[f"{name}{reading}"] = Place(f"{name}{reading}", place.axis, labels)
    nodes = [each for node in model.graph.node for each in (*inserted.get(tuple(node.output), ()), node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(ones.values())
    return model, tuple(places.values())
