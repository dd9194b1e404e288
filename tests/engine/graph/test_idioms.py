"""Half of every free channel of networks in their tools' idioms goes, exactly.

Each network states how many of its layers are free, so that a rule that begins to pin what it used to cut is seen.
"""

import idioms_fused
import idioms_paddle
import idioms_quantised
import idioms_tensorflow
import idioms_torch
import numpy as np
import pytest
from cuts import assert_correct, cut, run
from idioms import IDIOMS, Idiom

from worker.engine.graph import analyze, sample_inputs
from worker.engine.graph.standard_ops import with_standard_ops
from worker.engine.torch_form import build, parity

TOOLS = (idioms_fused, idioms_paddle, idioms_quantised, idioms_tensorflow, idioms_torch)


@pytest.mark.parametrize("case", IDIOMS, ids=str)
def test_half_of_what_is_free_goes(case: Idiom):
    done = cut(case.model(), allow_inexact=case.inexact)
    layers = done.analysis.layers
    free = [layer.name for layer in layers if layer.prunable_channels]
    assert len(layers) == case.layers
    assert len(free) == case.free, {layer.name: layer.pinned_reason for layer in layers}
    assert all(layer.pinned_reason for layer in layers if layer.prunable_channels < layer.channels)
    proof = assert_correct(done)
    assert bool(proof.waived_nodes) == case.inexact


FUSED = [case for case in IDIOMS if case.draw.__module__ == idioms_fused.__name__]


@pytest.mark.parametrize("case", FUSED, ids=str)
def test_what_is_written_in_standard_ops_computes_the_same_and_can_be_trained(case: Idiom):
    model = case.model()
    standard = with_standard_ops(model)
    assert {node.domain for node in standard.graph.node} == {""}
    assert not any("Sequence" in node.op_type or node.op_type == "If" for node in standard.graph.node)
    for due, found in zip(run(model), run(standard), strict=True):
        np.testing.assert_allclose(found, due, rtol=1e-5, atol=1e-5)
    form = build(model)
    assert parity(model, form, sample_inputs(model, 0)) < 1e-4
    assert len(form.parameters) >= len(analyze(model).layers)
