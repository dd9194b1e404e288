"""Networks of two layers. Every pruner prunes one before its clock starts, so that what a library does once per process
(loading operator schemas, importing lazily) is counted for none of them."""

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    import torch

SHAPE = (2, 3, 8, 8)


def small_graph() -> onnx.ModelProto:
    """Convolution, Relu, convolution, for images of SHAPE."""
    rng = np.random.default_rng(0)
    weights = {"a": (4, 3, 3, 3), "b": (5, 4, 3, 3)}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["images", "a"], ["wide"], "first"),
            helper.make_node("Relu", ["wide"], ["active"], "relu"),
            helper.make_node("Conv", ["active", "b"], ["out"], "second"),
        ],
        "small",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, (2, 5, 4, 4))],
        [numpy_helper.from_array(rng.random(shape, dtype=np.float32), name) for name, shape in weights.items()],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def small_network() -> tuple["torch.nn.Module", "torch.Tensor"]:
    """The same in torch, with images."""
    import torch

    layers = torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), torch.nn.Conv2d(16, 5, 3)
    return torch.nn.Sequential(*layers).eval(), torch.rand(SHAPE)
