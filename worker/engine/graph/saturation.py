"""Sigmoids near zero: what they give is rounded as if it were near one.

ONNX Runtime's logistic function is off by about 1e-7, however small its result is. A detector that sees nothing answers
with probabilities of that size, of which no digit means anything, and two equal graphs differ by all of them. So what
stands behind a sigmoid may differ by a few roundings of one besides what is tolerated, and what goes into the sigmoid
is compared instead.
"""

import numpy as np

from worker.engine.graph.analysis import LAYER_OPS
from worker.engine.graph.onnx_graph import OnnxGraph

ROUNDING = 4 * float(np.finfo(np.float32).eps)
_SATURATING = frozenset({"Sigmoid", "HardSigmoid"})


def saturated(graph: OnnxGraph) -> dict[str, frozenset[str]]:
    """Tensors of the main graph that are made of sigmoids' results, without a layer in between, and the inputs of these
    sigmoids as far as the graph computes them. Behind a layer, results have a size of their own again."""
    found: dict[str, frozenset[str]] = {}
    for node, scope in zip(graph.nodes, graph.scope, strict=True):
        if scope or node.op_type in LAYER_OPS:
            continue
        if node.op_type in _SATURATING:
            causes = frozenset({node.input[0]} & set(graph.producer))
        else:
            causes = frozenset().union(*(found.get(name, frozenset()) for name in node.input))
        if causes:
            found |= {name: causes for name in node.output if name}
    return found
