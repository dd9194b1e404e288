"""Every op rule on a graph of two layers with the op between them: the cut is exact, or the reason for none is told."""

import pytest

from tests.engine.graph.cuts import assert_correct, cut
from tests.engine.graph.op_cases import CASES, Case
from worker.engine.graph.propagation import RULES


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_op_between_two_layers(case: Case):
    model = case.model()
    assert any(node.op_type == case.op for node in model.graph.node)
    done = cut(model)
    source = done.analysis.layers[0]
    if case.pinned:
        assert source.prunable_channels == 0
        assert source.pinned_reason is not None
        assert case.pinned in source.pinned_reason
    else:
        assert source.prunable_channels > 0, source.pinned_reason
    assert_correct(done)


@pytest.mark.parametrize("case", [c for c in CASES if c.waived], ids=str)
def test_an_op_over_channels_with_its_exactness_waived(case: Case):
    done = cut(case.model(), allow_inexact=True)
    assert done.analysis.layers[0].prunable_channels > 0
    assert assert_correct(done).waived_nodes


def test_every_rule_has_a_case():
    assert set(RULES) == {case.op for case in CASES}
