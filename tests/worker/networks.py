"""Small models and datasets, made here."""

from __future__ import annotations

import io

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def convnet(classes: int = 4, width: int = 32, size: int = 12, seed: int = 0, depth: int = 2) -> onnx.ModelProto:
    """Convolutions with BatchNormalization, global pooling and a classifier, for images of 3 x size x size."""
    rng = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {}
    nodes: list[onnx.NodeProto] = []
    tensor, channels = "image", 3
    for i in range(depth):
        weights[f"conv{i}.weight"] = rng.normal(0, (2 / (9 * channels)) ** 0.5, (width, channels, 3, 3))
        weights |= {f"bn{i}.scale": np.ones(width), f"bn{i}.bias": np.zeros(width)}
        weights |= {f"bn{i}.mean": np.zeros(width), f"bn{i}.var": np.ones(width)}
        nodes += [
            helper.make_node("Conv", [tensor, f"conv{i}.weight"], [f"c{i}"], f"conv{i}", pads=[1, 1, 1, 1]),
            helper.make_node(
                "BatchNormalization", [f"c{i}", *(f"bn{i}.{p}" for p in ("scale", "bias", "mean", "var"))], [f"b{i}"]
            ),
            helper.make_node("Relu", [f"b{i}"], [f"r{i}"]),
        ]
        tensor, channels = f"r{i}", width
    weights |= {"fc.weight": rng.normal(0, channels**-0.5, (classes, channels)), "fc.bias": np.zeros(classes)}
    nodes += [
        helper.make_node("GlobalAveragePool", [tensor], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["logits"], "fc", transB=1),
    ]
    return model(nodes, weights, [["batch", 3, size, size]], [["batch", classes]])


def residual_network(blocks: int, width: int, classes: int = 4, size: int = 8, seed: int = 0) -> onnx.ModelProto:
    """A stem and blocks of two convolutions around which a shortcut leads, all of one width."""
    rng = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {}
    nodes: list[onnx.NodeProto] = []

    def convolved(tensor: str, name: str, channels: int = width) -> str:
        weights[f"{name}.weight"] = rng.normal(0, (2 / (9 * channels)) ** 0.5, (width, channels, 3, 3))
        nodes.append(helper.make_node("Conv", [tensor, f"{name}.weight"], [name], name, pads=[1, 1, 1, 1]))
        return name

    tensor = convolved("image", "stem", 3)
    for i in range(blocks):
        nodes.append(helper.make_node("Relu", [convolved(tensor, f"block{i}.0")], [f"inner{i}"]))
        nodes.append(helper.make_node("Add", [tensor, convolved(f"inner{i}", f"block{i}.1")], [f"sum{i}"]))
        tensor = f"sum{i}"
    weights["fc.weight"] = rng.normal(0, width**-0.5, (width, classes))
    nodes += [
        helper.make_node("GlobalAveragePool", [tensor], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "fc.weight"], ["logits"], "fc"),
    ]
    return model(nodes, weights, [["batch", 3, size, size]], [["batch", classes]])


def model(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    inputs: list[list[int | str]],
    outputs: list[list[int | str] | None],
) -> onnx.ModelProto:
    """A model of these nodes; its first input is `image`, its outputs are those of the last nodes."""
    names = [next(iter(n.output)) for n in nodes[-len(outputs) :]]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape) for shape in inputs],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(names, outputs, strict=True)],
        [numpy_helper.from_array(w if w.dtype == np.int64 else w.astype(np.float32), n) for n, w in weights.items()],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def fixed_batch(model: onnx.ModelProto, size: int) -> onnx.ModelProto:
    """The same network for that many images at a time."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = size
    return fixed


def double_precision_input(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network for images in float64, which it makes float32 at once."""
    taking = onnx.ModelProto()
    taking.CopyFrom(model)
    taking.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    for node in taking.graph.node:
        node.input[:] = ["single" if name == "image" else name for name in node.input]
    taking.graph.node.insert(0, helper.make_node("Cast", ["image"], ["single"], "single", to=TensorProto.FLOAT))
    return taking


def coloured_squares(samples: int = 240, classes: int = 4, size: int = 12, seed: int = 0) -> bytes:
    """An .npz dataset that a small network learns at once: each class has its own colour, plus noise."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(40, 216, (classes, 3))
    labels = np.arange(samples) % classes
    images = colours[labels][:, None, None, :] + rng.integers(-30, 30, (samples, size, size, 3))
    file = io.BytesIO()
    np.savez_compressed(file, x=images.clip(0, 255).astype(np.uint8), y=labels.astype(np.int64))
    return file.getvalue()


def unlabelled(dataset: bytes) -> bytes:
    """The images of an .npz dataset alone."""
    with np.load(io.BytesIO(dataset)) as arrays:
        images = {name: arrays[name] for name in arrays.files if name.startswith("x")}
    file = io.BytesIO()
    np.savez(file, **images)
    return file.getvalue()
