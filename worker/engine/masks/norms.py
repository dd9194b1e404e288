"""BatchNormalizations of a masked network taken anew before it is scored, in ONNX Runtime and in a single run.

Where all calibration images are one batch, normalising by that batch's own statistics is what normalising by
re-estimated averages is, norm after norm: a graph that does so gives all averages at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from worker.engine.errors import EngineError
from worker.engine.graph.inputs import given_inputs
from worker.engine.measure.session import cpu_session

_EPSILON = 1e-5  # of BatchNormalization, where it says nothing
_AXES_AS_INPUT = 18
"""The opset from which ReduceMean takes its axes as an input."""


def renormed(model: onnx.ModelProto, batch: np.ndarray) -> tuple[onnx.ModelProto, np.ndarray]:
    """The model with every mean and variance taken on the batch (N, ...), and what its first output is then.

    Norms without averages of their own stay. Raises EngineError where the model does not run on the batch.
    """
    (given,) = given_inputs(model)
    output = model.graph.output[0].name
    norms = [node for node in model.graph.node if _has_averages(node)]
    outputs = [output, *(each for node in norms for each in _statistics(node))]
    session = cpu_session(_measuring(model), threads=1)
    try:
        found = dict(zip(outputs, session.run(outputs, {given.name: batch}), strict=True))
    except Exception as error:
        raise EngineError(
            "not_runnable",
            f"The masked model does not run on a batch of {len(batch)} calibration images: {error}.",
            "Export it with a dynamic batch axis, or leave random_masks.bn_reestimation out.",
        ) from error
    taken = onnx.ModelProto()
    taken.CopyFrom(model)
    for node in taken.graph.node:
        if _has_averages(node):
            for place, statistic in zip((3, 4), _statistics(node), strict=True):
                value = np.asarray(found[statistic]).reshape(-1).astype(_type_of(model, node.input[place]))
                taken.graph.initializer.append(numpy_helper.from_array(value, statistic))
                node.input[place] = statistic
    return taken, np.asarray(found[output])


def _has_averages(node: onnx.NodeProto) -> bool:
    return node.op_type == "BatchNormalization" and len(node.output) == 1


def _statistics(norm: onnx.NodeProto) -> tuple[str, str]:
    """What the mean and the variance of the norm's input are called."""
    return f"{norm.output[0]}/batch_mean", f"{norm.output[0]}/batch_variance"


def _type_of(model: onnx.ModelProto, name: str) -> np.dtype[np.generic]:
    """Of a stored tensor; float32 of what is made by a node."""
    stored = next((tensor for tensor in model.graph.initializer if tensor.name == name), None)
    kind = TensorProto.FLOAT if stored is None else stored.data_type
    return np.dtype(helper.tensor_dtype_to_np_dtype(kind))


def _measuring(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with norms that use their batch's statistics, and these as further outputs."""
    opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 1)
    measuring = onnx.ModelProto()
    measuring.CopyFrom(model)
    del measuring.graph.node[:]
    for node in model.graph.node:
        if _has_averages(node):
            measuring.graph.node.extend(_by_the_batch(node, _type_of(model, node.input[1]), opset))
            measuring.graph.output.extend(onnx.ValueInfoProto(name=name) for name in _statistics(node))
        else:
            measuring.graph.node.append(node)
    return measuring


def _by_the_batch(norm: onnx.NodeProto, kind: np.dtype[np.generic], opset: int) -> Iterator[onnx.NodeProto]:
    """(N, C, ...) -> the same, normalised over all but C. In float32, also where the norm is not."""
    x, scale, bias = norm.input[:3]
    y = norm.output[0]
    mean, variance = _statistics(norm)
    epsilon = next((each.f for each in norm.attribute if each.name == "epsilon"), _EPSILON)
    constants = {"rows": np.array([0, 0, -1]), "axes": np.array([0, 2]), "column": np.array([1, -1, 1])}
    for name, value in (*constants.items(), ("epsilon", np.float32(epsilon))):
        yield helper.make_node("Constant", [], [f"{y}/{name}"], value=numpy_helper.from_array(np.asarray(value)))
    for name, value in (("x", x), ("scale", scale), ("bias", bias)):
        yield helper.make_node("Cast", [value], [f"{y}/{name}_float"], to=TensorProto.FLOAT)
    yield helper.make_node("Reshape", [f"{y}/x_float", f"{y}/rows"], [f"{y}/values"])
    yield _mean(f"{y}/values", mean, y, opset)
    yield helper.make_node("Sub", [f"{y}/values", mean], [f"{y}/centred"])
    yield helper.make_node("Mul", [f"{y}/centred", f"{y}/centred"], [f"{y}/squares"])
    yield _mean(f"{y}/squares", variance, y, opset)
    yield helper.make_node("Add", [variance, f"{y}/epsilon"], [f"{y}/above_zero"])
    yield helper.make_node("Sqrt", [f"{y}/above_zero"], [f"{y}/deviation"])
    for name in ("scale", "bias"):
        yield helper.make_node("Reshape", [f"{y}/{name}_float", f"{y}/column"], [f"{y}/{name}"])
    yield helper.make_node("Div", [f"{y}/scale", f"{y}/deviation"], [f"{y}/factor"])
    yield helper.make_node("Mul", [f"{y}/centred", f"{y}/factor"], [f"{y}/scaled"])
    yield helper.make_node("Add", [f"{y}/scaled", f"{y}/bias"], [f"{y}/shifted"])
    yield helper.make_node("Shape", [x], [f"{y}/shape"])
    yield helper.make_node("Reshape", [f"{y}/shifted", f"{y}/shape"], [f"{y}/as_x"])
    yield helper.make_node("Cast", [f"{y}/as_x"], [y], to=helper.np_dtype_to_tensor_dtype(kind))


def _mean(values: str, mean: str, y: str, opset: int) -> onnx.NodeProto:
    if opset >= _AXES_AS_INPUT:
        return helper.make_node("ReduceMean", [values, f"{y}/axes"], [mean], keepdims=1)
    return helper.make_node("ReduceMean", [values], [mean], keepdims=1, axes=[0, 2])
