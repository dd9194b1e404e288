"""Two models side by side in ONNX Runtime on the same inputs.

Not only the outputs are compared but what every layer computes: an error cannot hide behind a saturated output.
"""

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx

from worker.engine.errors import EngineError
from worker.engine.graph.analysis import LAYER_OPS, Analysis
from worker.engine.graph.choices import COMPARISONS, choices, compares_alike, own_choice, with_given_choices
from worker.engine.graph.onnx_graph import FLOATS, Array, node_label
from worker.engine.graph.precision import settle
from worker.engine.graph.rounding import Difference, judged, measured_rounding
from worker.engine.graph.runtime import RUNTIME_ERRORS, Session
from worker.engine.graph.saturation import saturated
from worker.engine.proof.inputs import inputs as inputs_of

_MAX_COMPARED = 16_000_000
"""Elements of inner tensors that one run may hold."""

Translate = Callable[[str, Array], Array | None]
"""(name, a tensor of the expected model) -> what the found model should have under that name; None where an axis in
question has another size than in the analysis: samples x heads differs with the batch."""

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


def compare(
    analysis: Analysis,
    expected_model: onnx.ModelProto,
    found_model: onnx.ModelProto,
    translate: Translate,
    *,
    seed: int = 0,
    inputs_per_size: int = 2,
    tolerance: float = 1e-4,
    real_inputs: Sequence[dict[str, Array]] = (),
    waived_nodes: tuple[str, ...] = (),
) -> Proof:
    """Run two models with the analysed one's inputs and compare their outputs and what every layer computes.

    The expected model is changed: it gains outputs. Raises EngineError where it does not load or run, and where an
    output of it has no number throughout.
    """
    comparison = _Comparison(analysis, expected_model, found_model, translate, tolerance)
    if not comparison.loads:
        return Proof(False, tolerance, float("inf"), 0, (), waived_nodes)
    runs: list[ProofRun] = []
    answers: list[_Answer] = []
    for inputs in inputs_of(analysis, comparison.expected, seed, inputs_per_size, real_inputs):
        answer = comparison.run(inputs)
        answers += [answer] if answer is not None else []
        shapes = {name: tuple(value.shape) for name, value in inputs.items()}
        runs.append(ProofRun(shapes, answer.difference.error if answer is not None else float("inf")))
    numbers = {name for answer in answers for name in answer.outputs_with_numbers}
    silent = [name for name in analysis.graph.outputs if name not in numbers]
    if answers and silent:
        raise EngineError(
            "not_finite",
            f"Output {silent[0]!r} of the model is NaN or infinite throughout, so that nothing can be said of it.",
            "Check that the original gives numbers in onnxruntime; a job with images is also proved on these.",
        )
    worst = max((run.max_relative_error for run in runs), default=float("inf"))
    compared = min((answer.compared for answer in answers), default=0)
    choosing = comparison.chosen.values() if any(answer.given_choices for answer in answers) else ()
    return Proof(
        passed=bool(compared > 0 and worst <= tolerance),
        tolerance=tolerance,
        max_relative_error=worst,
        compared_tensors=compared,
        runs=tuple(runs),
        waived_nodes=waived_nodes,
        given_choices=tuple(node_label(analysis.graph.nodes[node]) for node in choosing),
        excused=max((answer.difference.excused for answer in answers), default=0.0),
    )


class _Answer(NamedTuple):
    """What one run says: how far the models are apart, the number of tensors that tell, the outputs that have had a
    number, and whether the found model had to be given its choices."""

    difference: Difference
    compared: int
    outputs_with_numbers: frozenset[str]
    given_choices: bool


class _Comparison:
    """Sessions over both models with every layer's output as one more output. `loads`: the found model does."""

    def __init__(
        self,
        analysis: Analysis,
        expected_model: onnx.ModelProto,
        found_model: onnx.ModelProto,
        translate: Translate,
        tolerance: float,
    ) -> None:
        self.analysis, self.translate, self.tolerance = analysis, translate, tolerance
        self.chosen = choices(analysis.graph, analysis.facts.types)
        self._behind = saturated(analysis.graph)
        among = _chosen_from(analysis, self.chosen.values())
        causes = [c for name in (*analysis.graph.outputs, *among) for c in sorted(self._behind.get(name, ()))]
        self._taps = [*dict.fromkeys([*_taps(analysis), *among, *causes])]
        self._expected_model, self._found_model = expected_model, found_model
        try:
            self.expected = _session(expected_model, [*self._taps, *self.chosen])
        except RUNTIME_ERRORS as error:  # in float64, say, ONNX Runtime has no convolution
            raise EngineError(
                "model_does_not_load",
                f"ONNX Runtime cannot load the model: {error}",
                "Check that the model runs in onnxruntime; export it in float32.",
            ) from error
        try:
            self._found, self.loads = _session(copy.deepcopy(found_model), self._taps), True
        except RUNTIME_ERRORS:
            self.loads = False

    def run(self, inputs: dict[str, Array]) -> _Answer | None:
        """None where the found model does not run."""
        expected = _run(self.expected, inputs)
        try:
            pairs = self._pairs(_run(self._found, inputs), expected)
            difference, given_choices = judged(_errors(pairs), {}, self.tolerance), False
            given: dict[str, Array] = {}
            kept = self._translated(expected, self.chosen)
            if self.chosen and difference.error > self.tolerance and len(kept) == len(self.chosen):
                alike = self._pairs_after_choices(inputs, kept, expected)
                if alike is not None:
                    pairs, difference = alike, judged(_errors(alike), {}, self.tolerance)
                    given = {name: np.asarray(expected[name]) for name in self.chosen}
                given_choices = True
            if self.tolerance < difference.error < float("inf"):
                difference = judged(_errors(pairs), self._rounding(inputs, given, pairs), self.tolerance)
        except RUNTIME_ERRORS:
            return None
        outputs = self.analysis.graph.outputs
        return _Answer(
            difference,
            sum(_has_numbers(want) for want, _ in pairs.values()),
            frozenset(name for name in outputs if name not in pairs or _has_numbers(pairs[name][0])),
            given_choices,
        )

    def _pairs(self, found: dict[str, object], expected: dict[str, object]) -> _Pairs:
        return {
            name: (due, got)
            for name, got in found.items()
            if isinstance(want := expected.get(name), np.ndarray)
            and isinstance(got, np.ndarray)
            and (want.dtype.kind == "f" or name in self._taps)
            and (due := self.translate(name, want)) is not None
        }

    def _pairs_after_choices(
        self, inputs: dict[str, Array], given: dict[str, Array], expected: dict[str, object]
    ) -> _Pairs | None:
        """The tensors of a found model that is given these choices; None where its own are not alike."""
        reader = _session(with_given_choices(self._found_model, given), [*self._taps, *map(own_choice, self.chosen)])
        answers = _run(reader, inputs | given)
        pairs = self._pairs(answers, expected)
        return pairs if _choose_alike(self.analysis, self.chosen, pairs, given, answers) else None

    def _rounding(self, inputs: dict[str, Array], given: dict[str, Array], names: Iterable[str]) -> dict[str, float]:
        """How far each tensor may be off for rounding alone, where the expected model is given its choices."""
        session = _session(with_given_choices(self._expected_model, given), self._taps)
        return measured_rounding(
            lambda moved: self._translated(_run(session, moved), names), inputs | given, self._behind
        )

    def _translated(self, values: Mapping[str, object], names: Iterable[str]) -> dict[str, Array]:
        found = {name: self.translate(name, np.asarray(values[name])) for name in names}
        return {name: value for name, value in found.items() if value is not None}


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


def _session(model: onnx.ModelProto, taps: list[str]) -> Session:
    """A session over a model of the caller's own, with the tapped tensors as further outputs, in float32 and without
    the rounding of quantised activations, which would blur the comparison. Fusions stay off: they could hide a tap."""
    settle(model)
    known = {o.name for o in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in taps if name not in known)
    return Session(model, optimised=True)


def _run(session: Session, inputs: dict[str, Array]) -> dict[str, object]:
    return dict(zip(session.outputs, session.run(inputs), strict=True))


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
