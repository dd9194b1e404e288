"""Which tensors of a model are float32, also behind ops that inference does not know."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from worker.engine.errors import EngineError
from worker.engine.graph.facts import inferred_types
from worker.engine.graph.onnx_graph import OnnxGraph
from worker.engine.measure.session import cpu_session


def float32_tensors(model: onnx.ModelProto) -> list[str]:
    """Results of the main graph's nodes that are no constants. Inference ends at ops of ONNX Runtime's own, such as
    FusedConv: what it does not tell, ONNX Runtime does."""
    graph = OnnxGraph(model)
    names = [
        name
        for node, scope in zip(graph.nodes, graph.scope, strict=True)
        for name in node.output
        if name and not scope and node.op_type != "Constant"
    ]
    types = inferred_types(graph)
    told = _told_by_the_runtime(model, [name for name in names if name not in types])
    return [name for name in names if name in told or types.get(name) == TensorProto.FLOAT]


def _told_by_the_runtime(model: onnx.ModelProto, names: list[str]) -> set[str]:
    if not names:
        return set()
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    del tapped.graph.output[:]
    tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    try:
        outputs = cpu_session(tapped).get_outputs()
    except EngineError:  # whoever runs the model is told why it does not load
        return set()
    return {output.name for output in outputs if output.type == "tensor(float)"}
