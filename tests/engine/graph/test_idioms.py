"""Half of every free channel of networks in their tools' idioms goes, exactly.

Each network states how many of its layers are free, so that a rule that begins to pin what it used to cut is seen.
"""

import idioms_paddle
import idioms_quantised
import idioms_tensorflow
import idioms_torch
import pytest
from cuts import assert_correct, cut
from idioms import IDIOMS, Idiom

TOOLS = (idioms_paddle, idioms_quantised, idioms_tensorflow, idioms_torch)


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
