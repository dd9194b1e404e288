"""The parts of an image that a convolution's kernel covers at sampled positions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx

from worker.engine.graph.onnx_graph import attribute, ints_attribute


def sampled_patches(
    node: onnx.NodeProto, array: np.ndarray, kernel: Sequence[int], locations: int, rng: np.random.Generator
) -> np.ndarray:
    """`locations` random positions of the output of a Conv in each image of its input (N, C, ...), as (N * locations,
    C, taps of the kernel) with zeros where the kernel hangs over the border."""
    spatial, taps = array.shape[2:], math.prod(kernel)
    strides = ints_attribute(node, "strides") or [1] * len(spatial)
    dilations = ints_attribute(node, "dilations") or [1] * len(spatial)
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    before, after = _pads(node, spatial, reach, strides)
    padded = np.pad(array, [(0, 0), (0, 0), *zip(before, after, strict=True)])
    outputs = [(size - r) // s + 1 for size, r, s in zip(padded.shape[2:], reach, strides, strict=True)]
    patches = np.empty((len(array), locations, array.shape[1], taps), dtype=array.dtype)
    for image in range(len(array)):
        for number, corner in enumerate(rng.integers(0, outputs, (locations, len(outputs))).tolist()):
            window = tuple(
                slice(at * s, at * s + r, d) for at, s, r, d in zip(corner, strides, reach, dilations, strict=True)
            )
            patches[image, number] = padded[image][slice(None), *window].reshape(array.shape[1], taps)
    return patches.reshape(-1, array.shape[1], taps)


def _pads(
    node: onnx.NodeProto, spatial: tuple[int, ...], reach: list[int], strides: list[int]
) -> tuple[list[int], list[int]]:
    automatic = attribute(node, "auto_pad", b"NOTSET").decode()
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        sizes = zip(spatial, reach, strides, strict=True)
        total = [max((-(-size // s) - 1) * s + r - size, 0) for size, r, s in sizes]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        return (small, large) if automatic == "SAME_UPPER" else (large, small)
    pads = ints_attribute(node, "pads") if automatic == "NOTSET" else None
    pads = pads or [0] * 2 * len(spatial)
    return pads[: len(spatial)], pads[len(spatial) :]
