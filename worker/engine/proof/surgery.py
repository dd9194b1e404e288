"""The proof of a surgery: the pruned graph computes what the original does with the removed channels silenced."""

from collections.abc import Sequence

import numpy as np
import onnx

from worker.engine.graph.analysis import Analysis, Mask
from worker.engine.graph.onnx_graph import Array, node_label
from worker.engine.proof.comparison import Proof, compare
from worker.engine.proof.masking import masked_original
from worker.engine.surgery import Plan


def prove(
    analysis: Analysis,
    plan: Plan,
    pruned: onnx.ModelProto,
    *,
    seed: int = 0,
    inputs_per_size: int = 2,
    tolerance: float = 1e-4,
    real_inputs: Sequence[dict[str, Array]] = (),
) -> Proof:
    """Compare the pruned model with the masked original on random inputs, of up to three sizes where axes are dynamic,
    and on `real_inputs`. Raises EngineError where the original runs at no size."""
    alive = analysis.alive(plan.kept)
    waived = [w for w in analysis.propagation.waivers if not alive[w.labels].all()]
    return compare(
        analysis,
        masked_original(analysis, alive),
        pruned,
        lambda name, value: _kept_part(analysis, alive, name, value),
        seed=seed,
        inputs_per_size=inputs_per_size,
        tolerance=tolerance,
        real_inputs=real_inputs,
        waived_nodes=tuple(node_label(analysis.graph.nodes[w.node]) for w in waived),
    )


def _kept_part(analysis: Analysis, alive: Mask, name: str, value: Array) -> Array | None:
    for axis, labels in enumerate(analysis.propagation.tensors.get(name, [])):
        if labels is not None and not alive[labels].all():
            if len(labels) != value.shape[axis]:
                return None
            value = np.compress(alive[labels], value, axis=axis)
    return value
