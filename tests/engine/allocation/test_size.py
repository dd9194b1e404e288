"""A budget of bytes: no file comes out larger than what was estimated to keep it."""

from __future__ import annotations

import pytest

from tests.worker.networks import convnet
from worker.engine.allocation import allocate, size_limit
from worker.engine.criteria import score
from worker.engine.graph import Analysis, analyze
from worker.engine.surgery import prune


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analyze(convnet(width=64, depth=4))


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2, 0.1, 0.05])
@pytest.mark.parametrize("method", ["global", "uniform"])
def test_the_file_keeps_what_the_estimate_keeps(analysis: Analysis, share: float, method: str) -> None:
    original = analysis.graph.model.ByteSize()
    goal = int(share * original)
    limit = size_limit(analysis, goal, original)
    found = allocate(analysis, score(analysis, "l2"), [limit], method=method, round_to=1, min_ratio=0.0)
    assert found.reached
    cut = prune(analysis, found.plan).ByteSize()
    assert cut <= found.lines[0].value <= goal
    assert goal - cut < 0.03 * original  # and hardly smaller than it has to be


def test_less_than_the_smallest_file_is_unreachable(analysis: Analysis) -> None:
    original = analysis.graph.model.ByteSize()
    scores = score(analysis, "l2")
    least = allocate(analysis, scores, [size_limit(analysis, 1, original)], round_to=1, min_ratio=0.0)
    goal = prune(analysis, least.plan).ByteSize() - 10
    found = allocate(analysis, scores, [size_limit(analysis, goal, original)], round_to=1, min_ratio=0.0)
    assert found.lines[0].reason
