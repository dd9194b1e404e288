"""The steps in which widths move."""

import numpy as np
import pytest

from tests.engine.graph.graph_builder import GraphBuilder
from worker.engine.allocation.widths import Widths
from worker.engine.criteria import score
from worker.engine.graph import analyze


@pytest.mark.parametrize(
    ("channels", "round_to", "step"),
    [
        (64, 8, 8),
        (32, 8, 8),
        (31, 8, 4),
        (16, 8, 4),
        (12, 8, 2),
        (7, 8, 1),
        (3, 8, 1),
        (64, 12, 12),
        (40, 12, 6),
        (9, 1, 1),
    ],
)
def test_a_width_moves_in_multiples_of_round_to_or_in_as_many_halves_as_leave_four_steps(
    channels: int, round_to: int, step: int
) -> None:
    g = GraphBuilder()
    first = g.node("Relu", g.conv(g.input(("n", 3, 8, 8)), 3, channels))
    analysis = analyze(g.model(g.conv(first, channels, 4)))
    widths = Widths(analysis, score(analysis, "l2"), round_to=round_to, min_ratio=0.05)
    assert widths.step.tolist() == [step]
    rounded = {int(widths.round(np.array([float(wanted)]))[0]) for wanted in range(1, channels + 1)}
    assert rounded == {*range(step, channels, step), channels}
