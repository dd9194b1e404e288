"""Random networks, cut at random: the proof holds for each, whatever blocks meet.

`make test` tries the same 2,000 graphs every time; `make test-random GRAPHS=20000` draws as many new ones.
"""

import os
import secrets

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis import strategies as st

from tests.engine.graph.cuts import Cut, assert_exact, at_random, run
from tests.engine.graph.random_graphs import Network
from worker.engine.errors import EngineError
from worker.engine.graph import analyze
from worker.engine.graph.runtime import RUNTIME_ERRORS
from worker.engine.surgery import prune

PARTS = 16
SEARCHED = int(os.environ.get("ESPALIER_RANDOM_GRAPHS", "0"))
GRAPHS = max(SEARCHED, 2000)
START = secrets.randbits(32) if SEARCHED else 0


@pytest.mark.timeout(0 if SEARCHED else 300)
@pytest.mark.parametrize("part", range(PARTS))
def test_a_random_cut_of_a_random_network_is_exact(part: int):
    prunable = 0

    @seed(START + part)
    @settings(
        max_examples=GRAPHS // PARTS,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def is_exact(data: st.DataObject) -> None:
        nonlocal prunable
        model = Network(lambda lowest, highest: data.draw(st.integers(lowest, highest))).grow()
        analysis = analyze(model, allow_inexact=data.draw(st.booleans()))
        plan = at_random(analysis, data.draw(st.integers(0, 2**16)))
        done = Cut(analysis, plan, prune(analysis, plan))
        try:
            assert_exact(done)
        except (AssertionError, EngineError):
            assume(is_sound(model))
            raise
        if data.draw(st.integers(1, 4)) == 1:  # by ONNX Runtime with all its fusions, too: they take most of the time
            run(done.pruned)
        prunable += bool(analysis.groups)

    is_exact()
    assert prunable > 0.6 * GRAPHS / PARTS  # most have something to cut, or nothing would be shown


def is_sound(model: onnx.ModelProto) -> bool:
    """Whether the network itself loads and computes numbers. A few of a hundred thousand do not: ONNX Runtime's
    optimiser trips over some, and its MeanVarianceNormalization has no epsilon, so a dead channel is 0 / 0."""
    try:
        return all(np.isfinite(value).all() for value in run(model))
    except RUNTIME_ERRORS:
        return False
