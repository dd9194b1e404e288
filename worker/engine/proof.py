"""The proof of a surgery: the pruned graph computes what the original does with the removed channels silenced.

The masked original sets the removed channels' outgoing weights to zero, written as a product of the activation with a
mask of ones and zeros in front of every node that sums over channels. It uses the labels but none of the surgery's
slicing, renumbering or rewriting. Both graphs run in ONNX Runtime on the same random inputs, and not only the outputs
are compared but what every layer computes: an error cannot hide behind a saturated output.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from worker.engine.errors import EngineError
from worker.engine.graph.analysis import LAYER_OPS, Analysis, Mask
from worker.engine.graph.choices import COMPARISONS, FLOATS, choices, compares_alike, own_choice, with_given_choices
from worker.engine.graph.inputs import Sizes, candidate_sizes, random_inputs, with_batch
from worker.engine.graph.labels import Labels
from worker.engine.graph.onnx_graph import Array, node_label
from worker.engine.graph.precision import settle
from worker.engine.graph.propagation import Contraction, Waiver
from worker.engine.graph.rounding import judged, measured_rounding
from worker.engine.graph.runtime import RUNTIME_ERRORS, Session
from worker.engine.graph.saturation import saturated
from worker.engine.surgery import Plan

_LARGER_BATCH = 3
_MAX_COMPARED = 16_000_000
"""Elements of inner tensors that one run may hold."""

_Pairs = dict[str, tuple[Array, Array]]
"""Name of a tensor -> what it should be, and what it is."""


@dataclass(frozen=True)
class ProofRun:
    input_shapes: dict[str, tuple[int, ...]]
    max_relative_error: float


@dataclass(frozen=True)
class Proof:
    """max_relative_error: the largest of max|masked - pruned| / max|masked| over all compared tensors and runs, but for
    those that are `excused` for rounding (see graph.rounding): the largest of these."""

    passed: bool
    tolerance: float
    max_relative_error: float
    compared_tensors: int
    runs: tuple[ProofRun, ...]
    waived_nodes: tuple[str, ...]
    given_choices: tuple[str, ...] = ()
    """Nodes that choose among near ties (TopK, say), where the pruned graph was given the masked original's choice: the
    two were apart by more than the tolerance without, and are compared at what these nodes choose among."""
    excused: float = 0.0


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
        waived_nodes=tuple(_label(analysis, w.node) for w in waived),
    )


def compare(
    analysis: Analysis,
    expected_model: onnx.ModelProto,
    found_model: onnx.ModelProto,
    translate: Callable[[str, Array], Array | None],
    *,
    seed: int = 0,
    inputs_per_size: int = 2,
    tolerance: float = 1e-4,
    real_inputs: Sequence[dict[str, Array]] = (),
    waived_nodes: tuple[str, ...] = (),
) -> Proof:
    """Run two models with the analysed one's inputs and compare their outputs and what every layer computes.

    `translate(name, value)` turns a tensor of the expected model into what the found model should have under that name,
    or is None where an axis in question has another size than in the analysis: samples x heads differs with the batch.
    The expected model is changed: it gains outputs.
    """
    chosen = choices(analysis.graph, analysis.facts.types)
    behind = saturated(analysis.graph)
    among = _chosen_from(analysis, chosen.values())
    causes = [cause for name in (*analysis.graph.outputs, *among) for cause in sorted(behind.get(name, ()))]
    taps = [*dict.fromkeys([*_taps(analysis), *among, *causes])]
    try:
        expected_session = _session(expected_model, [*taps, *chosen])
    except RUNTIME_ERRORS as error:  # in float64, say, ONNX Runtime has no convolution
        raise EngineError(
            "model_does_not_load",
            f"ONNX Runtime cannot load the model: {error}",
            "Check that the model runs in onnxruntime; export it in float32.",
        ) from error
    runs: list[ProofRun] = []
    try:
        found_session = _session(_copy(found_model), taps)
    except RUNTIME_ERRORS:
        return Proof(False, tolerance, float("inf"), 0, (), waived_nodes)

    def side_by_side(found: dict[str, object], expected: dict[str, object]) -> _Pairs:
        return {
            name: (due, got)
            for name, got in found.items()
            if isinstance(want := expected.get(name), np.ndarray)
            and isinstance(got, np.ndarray)
            and (want.dtype.kind == "f" or name in taps)
            and (due := translate(name, want)) is not None
        }

    def rounding(inputs: dict[str, Array], given: dict[str, Array], names: Iterable[str]) -> dict[str, float]:
        session = _session(with_given_choices(expected_model, given), taps)

        def run(inputs: dict[str, Array]) -> dict[str, Array]:
            values = _run(session, inputs)
            kept = {name: translate(name, np.asarray(values[name])) for name in names}
            return {name: value for name, value in kept.items() if value is not None}

        return measured_rounding(run, inputs, behind)

    compared: list[int] = []
    numbers: set[str] = set()  # outputs that have had some
    given_choices, excused = False, 0.0
    for inputs in _inputs(analysis, expected_session, seed, inputs_per_size, real_inputs):
        expected = _run(expected_session, inputs)
        shapes = {name: tuple(value.shape) for name, value in inputs.items()}
        try:
            pairs = side_by_side(_run(found_session, inputs), expected)
            found = judged(_errors(pairs), {}, tolerance)
            given: dict[str, Array] = {}
            kept = {name: translate(name, np.asarray(expected[name])) for name in chosen}
            fitting = {name: value for name, value in kept.items() if value is not None}
            if chosen and found.error > tolerance and len(fitting) == len(chosen):
                reader = _session(with_given_choices(found_model, fitting), [*taps, *map(own_choice, chosen)])
                answers = _run(reader, inputs | fitting)
                alike = side_by_side(answers, expected)
                if _choose_alike(analysis, chosen, alike, fitting, answers):
                    pairs, found = alike, judged(_errors(alike), {}, tolerance)
                    given = {name: np.asarray(expected[name]) for name in chosen}
                given_choices = True
            if tolerance < found.error < float("inf"):
                found = judged(_errors(pairs), rounding(inputs | given, given, pairs), tolerance)
        except RUNTIME_ERRORS:
            runs.append(ProofRun(shapes, float("inf")))
            continue
        compared.append(sum(_has_numbers(want) for want, _ in pairs.values()))
        numbers.update(name for name in analysis.graph.outputs if name not in pairs or _has_numbers(pairs[name][0]))
        excused = max(excused, found.excused)
        runs.append(ProofRun(shapes, found.error))
    worst = max((run.max_relative_error for run in runs), default=float("inf"))
    silent = [name for name in analysis.graph.outputs if name not in numbers]
    if compared and silent:
        raise EngineError(
            "not_finite",
            f"Output {silent[0]!r} of the model is NaN or infinite throughout, so that nothing can be said of it.",
            "Check that the original gives numbers in onnxruntime; a job with images is also proved on these.",
        )
    return Proof(
        passed=bool(min(compared, default=0) > 0 and worst <= tolerance),
        tolerance=tolerance,
        max_relative_error=worst,
        compared_tensors=min(compared, default=0),
        runs=tuple(runs),
        waived_nodes=waived_nodes,
        given_choices=tuple(_label(analysis, node) for node in chosen.values()) if given_choices else (),
        excused=excused,
    )


def masked_original(analysis: Analysis, alive: Mask) -> onnx.ModelProto:
    """The original model with the removed channels silenced wherever a node sums over them."""
    model = _copy(analysis.graph.model)
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
    model = _copy(analysis.graph.model)
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
        axis = waiver.axis - rank + len(analysis.facts.shapes[name])
        if axis < 0 or analysis.facts.shapes[name][axis] == 1:
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


# ---------------------------------------------------------------------------------------------- running


def _session(model: onnx.ModelProto, taps: list[str]) -> Session:
    """A session over a model of the caller's own, with the tapped tensors as further outputs, in float32 and without
    the rounding of quantised activations, which would blur the comparison. Fusions stay off: they could hide a tap."""
    settle(model)
    known = {o.name for o in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in taps if name not in known)
    return Session(model, optimised=True)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _taps(analysis: Analysis) -> list[str]:
    """Outputs of all layers, the smaller ones first, as far as they fit in memory."""
    shapes = analysis.facts.shapes
    names = [
        node.output[0]
        for node, scope in zip(analysis.graph.nodes, analysis.graph.scope, strict=True)
        if scope == 0 and node.op_type in LAYER_OPS and node.output[0] in shapes
    ]
    names.sort(key=lambda name: math.prod(shapes[name]))
    sizes = np.cumsum([math.prod(shapes[name]) for name in names])
    return names[: int(np.searchsorted(sizes, _MAX_COMPARED, side="right"))]


def _chosen_from(analysis: Analysis, nodes: Iterable[int]) -> list[str]:
    """What these nodes choose among, and the values of what they choose."""
    graph = analysis.graph
    chosen = [graph.nodes[node] for node in nodes]
    names = [name for node in chosen for name in node.input if name in graph.producer]
    names += [node.output[0] for node in chosen if node.op_type == "TopK" and node.output[0]]
    return [name for name in names if analysis.facts.types.get(name) in FLOATS]


def _run(session: Session, inputs: dict[str, Array]) -> dict[str, object]:
    return dict(zip(session.outputs, session.run(inputs), strict=True))


def _choose_alike(
    analysis: Analysis,
    chosen: Mapping[str, int],
    pairs: _Pairs,
    given: Mapping[str, Array],
    answers: Mapping[str, object],
) -> bool:
    """Whether what is chosen differs by no more than what there is to choose from: no number moves the n-th largest of
    some numbers further than itself, and none passes a threshold that it is further away from than it moved. `given`
    are the choices, `answers` what the pruned graph makes of them and would have chosen itself."""
    for name, index in chosen.items():
        node = analysis.graph.nodes[index]
        own = np.asarray(answers[own_choice(name)])
        if node.op_type in COMPARISONS and not compares_alike(analysis.graph, node, pairs, given[name], own):
            return False
        among, values = pairs.get(node.input[0]), pairs.get(node.output[0])
        if node.op_type == "TopK" and among is not None and values is not None:
            (want, got), (best, found) = among, values
            if want.shape != got.shape or best.shape != found.shape:
                return False
            if best.size and np.abs(best - found).max() > np.abs(want - got).max():
                return False
    return True


def _inputs(
    analysis: Analysis,
    session: Session,
    seed: int,
    per_size: int,
    real_inputs: Sequence[dict[str, Array]],
) -> Iterator[dict[str, Array]]:
    sizes = [s for s in (_runnable(analysis, session, c) for c in _several_sizes(analysis)) if s is not None]
    if not sizes:
        raise EngineError(
            "model_does_not_run",
            "ONNX Runtime cannot run the model on random inputs.",
            "Check that the model runs in onnxruntime, or give its inputs fixed shapes.",
        )
    for number, size in enumerate(sizes):
        for i in range(per_size):
            yield random_inputs(analysis.graph, size, seed + 1000 * number + i)
    yield from real_inputs


def _several_sizes(analysis: Analysis) -> Iterator[list[Sizes]]:
    """First the size of the analysis; then, where axes are dynamic, a larger batch, for a smaller one fits into bounds
    that were taken from the first; then candidates for another size."""
    first = analysis.facts.sizes
    yield [first]
    larger = with_batch(analysis.graph, first, _LARGER_BATCH)
    if larger != first:
        yield [larger]
    others = [s for s, _ in candidate_sizes(analysis.graph) if s != first]
    different = [s for s in others if all(s[n][1:] != first[n][1:] for n in s if len(s[n]) > 2)]
    if others:
        yield [*different[:4], *others[:4]]


def _runnable(analysis: Analysis, session: Session, candidates: list[Sizes]) -> Sizes | None:
    for sizes in candidates:
        try:
            session.run(random_inputs(analysis.graph, sizes, 0))
        except RUNTIME_ERRORS:
            continue
        return sizes
    return None


def _kept_part(analysis: Analysis, alive: Mask, name: str, value: Array) -> Array | None:
    for axis, labels in enumerate(analysis.propagation.tensors.get(name, [])):
        if labels is not None and not alive[labels].all():
            if len(labels) != value.shape[axis]:
                return None
            value = np.compress(alive[labels], value, axis=axis)
    return value


def _has_numbers(values: Array) -> bool:
    """Or is empty, as what a detector finds may be."""
    return not values.size or bool(np.isfinite(values).any())


def _errors(pairs: _Pairs) -> dict[str, float]:
    return {name: _error(want, got) for name, (want, got) in pairs.items()}


def _error(expected: Array, found: Array) -> float:
    """max|expected - found| / max|expected|; infinite where shapes or the places of non-finite values differ."""
    if expected.shape != found.shape:
        return float("inf")
    if not expected.size:
        return 0.0
    finite = np.isfinite(expected)
    if not np.array_equal(finite, np.isfinite(found)):
        return float("inf")
    want, got = (a[finite] if a.dtype.kind == "f" else a[finite].astype(np.float64) for a in (expected, found))
    scale = float(np.abs(want).max(initial=0.0))
    largest = float(np.abs(want - got).max(initial=0.0))
    return largest / scale if scale > 0 else (0.0 if largest == 0 else float("inf"))


def _label(analysis: Analysis, node: int) -> str:
    return node_label(analysis.graph.nodes[node])
