"""What two models are compared on: random inputs of several sizes, and real ones."""

import math
from collections.abc import Iterator, Sequence

from worker.engine.errors import EngineError
from worker.engine.graph.analysis import Analysis
from worker.engine.graph.inputs import Sizes, candidate_sizes, random_inputs, with_batch
from worker.engine.graph.onnx_graph import Array
from worker.engine.graph.runtime import RUNTIME_ERRORS, Session

_LARGER_BATCH = 3


def inputs(
    analysis: Analysis,
    session: Session,
    seed: int,
    per_size: int,
    real_inputs: Sequence[dict[str, Array]],
) -> Iterator[dict[str, Array]]:
    """`per_size` random ones of each size that the session's model runs at, then the real ones. Raises EngineError
    where it runs at none."""
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
    that were taken from the first; then candidates for another size, the next larger one first: what attention among
    all positions of an image holds grows with the fourth power of its side."""
    first = analysis.facts.sizes
    yield [first]
    larger = with_batch(analysis.graph, first, _LARGER_BATCH)
    if larger != first:
        yield [larger]
    others = [s for s, _ in candidate_sizes(analysis.graph) if s != first]
    others.sort(key=lambda sizes: (_positions(sizes) < _positions(first), _positions(sizes)))
    different = [s for s in others if all(s[n][1:] != first[n][1:] for n in s if len(s[n]) > 2)]
    if others:
        yield [*different[:4], *others[:4]]


def _positions(sizes: Sizes) -> int:
    """Elements of one sample."""
    return sum(math.prod(shape[1:]) for shape in sizes.values())


def _runnable(analysis: Analysis, session: Session, candidates: list[Sizes]) -> Sizes | None:
    for sizes in candidates:
        try:
            session.run(random_inputs(analysis.graph, sizes, 0))
        except RUNTIME_ERRORS:
            continue
        return sizes
    return None
