"""Values that float16 has no numbers for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from worker.engine.errors import EngineError
from worker.engine.export.float32_tensors import float32_tensors
from worker.engine.graph.onnx_graph import OnnxGraph
from worker.engine.graph.runtime import RUNTIME_ERRORS
from worker.engine.measure.session import cpu_session

LARGEST = float(np.finfo(np.float16).max)
_REACH = LARGEST / 2
"""Beyond it a value counts as too large: other images may go further."""


def too_large_for_float16(model: onnx.ModelProto, inputs: Sequence[Mapping[str, np.ndarray]]) -> frozenset[str]:
    """Tensors of the main graph, its inputs included, that hold such values on these inputs. What is infinite in
    float32 is so in float16."""
    graph = OnnxGraph(model)
    names = [value.name for value in graph.inputs if value.type.tensor_type.elem_type == TensorProto.FLOAT]
    names += float32_tensors(model)
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    del tapped.graph.output[:]
    for number, name in enumerate(names):
        tapped.graph.node.append(helper.make_node("Abs", [name], [f"{name}/size"]))
        tapped.graph.node.append(helper.make_node("ReduceMax", [f"{name}/size"], [f"largest/{number}"], keepdims=0))
        tapped.graph.output.append(onnx.ValueInfoProto(name=f"largest/{number}"))
    if not names:
        return frozenset()
    try:
        session = cpu_session(tapped)
        largest = np.max([session.run(None, dict(feed)) for feed in inputs], axis=0)
    except (*RUNTIME_ERRORS, EngineError):  # an op that cannot be tapped: the file is compared in any case
        return frozenset()
    found = zip(names, largest, strict=True)
    return frozenset(name for name, value in found if _REACH < value < np.inf)
