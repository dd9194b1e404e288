"""Sampled patches against the convolution that reads them."""

from typing import Any

import numpy as np
import pytest

from tests.engine.graph.graph_builder import GraphBuilder
from worker.engine.criteria.patches import sampled_patches
from worker.engine.measure.session import cpu_session

IMAGES, LOCATIONS = 3, 20


@pytest.mark.parametrize(
    ("size", "kernel", "attributes"),
    [
        ((9, 8), (3, 3), {}),
        ((9, 8), (3, 3), {"pads": [1, 0, 2, 1]}),
        ((9, 8), (3, 2), {"strides": [2, 1], "dilations": [1, 2], "pads": [1, 1, 1, 1]}),
        ((9, 8), (4, 2), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ((9, 8), (4, 2), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
        ((9, 8), (3, 3), {"auto_pad": "VALID", "strides": [2, 3]}),
        ((11,), (4,), {"auto_pad": "SAME_LOWER"}),
    ],
)
def test_a_patch_is_what_the_convolution_multiplies(
    size: tuple[int, ...], kernel: tuple[int, ...], attributes: dict[str, Any]
) -> None:
    g = GraphBuilder()
    weight = g.normal(5, 4, *kernel)
    g.node("Conv", g.input(("n", 4, *size), name="x"), g.constant(weight), **attributes)
    model = g.model(g.nodes[-1].output[0])
    x = np.random.default_rng(1).normal(size=(IMAGES, 4, *size)).astype(np.float32)
    (outputs,) = cpu_session(model).run(None, {"x": x})
    found = sampled_patches(model.graph.node[-1], x, kernel, LOCATIONS, np.random.default_rng(2))
    assert found.shape == (IMAGES * LOCATIONS, 4, np.prod(kernel))
    rng = np.random.default_rng(2)  # draws the same places
    places = [(image, rng.integers(0, outputs.shape[2:], (LOCATIONS, len(size)))) for image in range(IMAGES)]
    expected = [outputs[image, :, *place] for image, drawn in places for place in drawn]
    made = found.reshape(len(found), -1) @ weight.reshape(5, -1).T
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)
