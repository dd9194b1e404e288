"""The criterion that knows what least squares will make up for."""

import numpy as np
import onnx
from onnx import numpy_helper

from tests.worker.networks import convnet
from worker.engine.criteria import Calibration, score
from worker.engine.graph import analyze


def with_copies() -> onnx.ModelProto:
    """Filters 8 to 15 of the first convolution repeat filters 0 to 7, three times as large."""
    model = convnet(width=16)
    for tensor in model.graph.initializer:
        if tensor.name == "conv0.weight":
            weight = numpy_helper.to_array(tensor).copy()
            weight[8:] = 3 * weight[:8]
            tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    return model


def test_channels_that_others_can_stand_in_for_go_first():
    analysis = analyze(with_copies())
    images = np.random.default_rng(0).random((40, 3, 12, 12), dtype=np.float32) - 0.5
    scores = score(analysis, "refit", {"normalisation": "none", "ridge": 1e-6}, calibration=Calibration(images))
    first = scores[0]
    for small, large in zip(first[:8], first[8:], strict=True):
        assert min(small, large) < 1e-3 < max(small, large)
    assert np.sort(first)[7] < 1e-3 < np.sort(first)[8]
    assert first.max() < 1.5  # all of the output's variance, at most
    # By weights alone the larger copies are all more important than the smaller ones.
    assert (score(analysis, "l2")[0][8:] > score(analysis, "l2")[0][:8]).all()


def test_scores_grow_along_the_order_of_removal_and_repeat():
    analysis = analyze(convnet(width=16))
    calibration = Calibration(np.random.default_rng(1).random((20, 3, 12, 12), dtype=np.float32))
    found = [score(analysis, "refit", seed=3, calibration=calibration) for _ in range(2)]
    for group in analysis.groups:
        assert len(set(found[0][group.id])) == len(group)
        assert (found[0][group.id] == found[1][group.id]).all()
