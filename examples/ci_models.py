"""Two small networks for ci-webhook.md: `python examples/ci_models.py FOLDER` writes good.onnx and bad.onnx there.

Good: three convolutions, of which the first two can give up channels. Bad: nearly all of its cost is in a convolution
whose channels are the model's output, and stay.
"""

import sys
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

SIDE = 16


def network(widths: tuple[int, ...]) -> ModelProto:
    """A chain of 3x3 convolutions with ReLU between them: 3 channels in, `widths` channels after each."""
    random = np.random.default_rng(0)
    nodes, weights, channels, value = [], [], 3, "image"
    for number, width in enumerate(widths):
        kernel = random.normal(0, 0.1, (width, channels, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"weight{number}"))
        last = number == len(widths) - 1
        sum_of = "output" if last else f"sum{number}"
        nodes.append(helper.make_node("Conv", [value, f"weight{number}"], [sum_of], f"conv{number}", pads=[1] * 4))
        if not last:
            nodes.append(helper.make_node("Relu", [sum_of], [f"relu{number}"], f"relu{number}"))
        channels, value = width, f"relu{number}"
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", widths[-1], SIDE, SIDE])
    graph = helper.make_graph(nodes, "network", [image], [output], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "good.onnx").write_bytes(network((32, 32, 8)).SerializeToString())
    (folder / "bad.onnx").write_bytes(network((64,)).SerializeToString())
