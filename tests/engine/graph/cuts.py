"""What a correct cut is, for tests: cut a model at random, and assert all that must hold of the result."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto

from worker.engine.graph import Analysis, OnnxGraph, analyze, sample_inputs
from worker.engine.graph.analysis import Mask
from worker.engine.graph.onnx_graph import mentioned_names
from worker.engine.proof import Proof, prove
from worker.engine.surgery import Plan, prune


@dataclass(frozen=True)
class Cut:
    analysis: Analysis
    plan: Plan
    pruned: onnx.ModelProto


def half(analysis: Analysis, seed: int = 0, groups: Iterable[int] | None = None) -> Plan:
    """Keep a random half of the units of each group (rounded up), so that kept indices are uneven."""
    rng = np.random.default_rng(seed)
    wanted = set(range(len(analysis.groups)) if groups is None else groups)
    return Plan({g.id: _mask(rng, len(g), (len(g) + 1) // 2) for g in analysis.groups if g.id in wanted})


def at_random(analysis: Analysis, seed: int) -> Plan:
    """Keep any number of units, at least one, of each group."""
    rng = np.random.default_rng(seed)
    return Plan({g.id: _mask(rng, len(g), int(rng.integers(1, len(g) + 1))) for g in analysis.groups})


def _mask(rng: np.random.Generator, units: int, kept: int) -> Mask:
    mask = np.zeros(units, dtype=bool)
    mask[rng.permutation(units)[:kept]] = True
    return mask


def cut(model: onnx.ModelProto, *, seed: int = 0, allow_inexact: bool = False) -> Cut:
    analysis = analyze(model, allow_inexact=allow_inexact)
    plan = half(analysis, seed)
    return Cut(analysis, plan, prune(analysis, plan))


def assert_correct(done: Cut, tolerance: float = 1e-4) -> Proof:
    """The pruned model is valid and runs as ONNX Runtime runs it by default, the proof passes, and MACs and parameters
    are exactly what the cost table said."""
    pruned = done.pruned
    if all(o.type.tensor_type.HasField("shape") for o in pruned.graph.output):  # the checker insists on their shapes
        onnx.checker.check_model(pruned)
    run(pruned)
    proof = assert_exact(done, tolerance)
    assert analyze(pruned).params == stored_weights(pruned)
    return proof


def assert_exact(done: Cut, tolerance: float = 1e-4) -> Proof:
    """The proof passes, the cost table knew the weights in the file and the MACs, and no constant is read no more."""
    analysis, plan, pruned = done.analysis, done.plan, done.pruned
    proof = prove(analysis, plan, pruned, inputs_per_size=1, tolerance=tolerance)
    assert proof.passed, proof
    assert proof.compared_tensors >= len(pruned.graph.output)  # of each size
    counts = plan.counts(analysis)
    assert analyze(pruned).macs == int(analysis.costs.macs(counts))
    assert stored_weights(pruned) == int(analysis.costs.params(counts))
    assert unread(pruned) <= unread(analysis.graph.model)
    return proof


def unread(model: onnx.ModelProto) -> set[str]:
    """Initializers that nothing reads, of which ONNX Runtime warns at every load."""
    inputs = {value.name for value in model.graph.input}
    return {tensor.name for tensor in model.graph.initializer} - set(mentioned_names(model.graph)) - inputs


def stored_weights(model: onnx.ModelProto) -> int:
    """Elements of all constants of a model that are no shapes, indices or flags."""
    graph = OnnxGraph(model)
    shapes_and_flags = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.STRING)
    return sum(math.prod(t.dims) for t in graph.constants.values() if t.data_type not in shapes_and_flags)


def assert_cuts(model: onnx.ModelProto, *, seed: int = 0, allow_inexact: bool = False) -> Cut:
    """Half of everything prunable goes, correctly; the cut is returned for further questions."""
    done = cut(model, seed=seed, allow_inexact=allow_inexact)
    assert done.analysis.groups, f"nothing is prunable: {set(done.analysis.reasons.values())}"
    assert_correct(done)
    return done


def run(model: onnx.ModelProto, inputs: dict[str, np.ndarray] | None = None) -> list[np.ndarray]:
    """Outputs in ONNX Runtime with all its optimisations."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, sample_inputs(model) if inputs is None else inputs)


def prunable(analysis: Analysis) -> dict[str, int]:
    """Prunable channels of each layer, by name."""
    return {layer.name: layer.prunable_channels for layer in analysis.layers}


def reasons(analysis: Analysis) -> set[str]:
    return set(analysis.reasons.values())
