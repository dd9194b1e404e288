"""Hostile files that call themselves ONNX, each with the code of its refusal."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ATTACKS: dict[str, tuple[Callable[[], bytes], set[str]]] = {}


def attack(*codes: str) -> Callable[[Callable[[], bytes]], Callable[[], bytes]]:
    """Register a file under its function's name."""

    def register(make: Callable[[], bytes]) -> Callable[[], bytes]:
        ATTACKS[make.__name__] = (make, set(codes))
        return make

    return register


def _model(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray] | None = None,
    shape: list[int | str] | None = None,
    **fields: object,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "attack",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape or [1, 4])],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)], **fields)


def _relu(name: str = "relu", output: str = "y") -> onnx.NodeProto:
    return helper.make_node("Relu", ["x"], [output], name)


@attack("empty_file")
def empty() -> bytes:
    return b""


@attack("not_onnx")
def truncated() -> bytes:
    whole = _model([_relu()], {"w": np.zeros((64, 64), np.float32)}).SerializeToString()
    return whole[: len(whole) // 2]


@attack("not_onnx")
def text() -> bytes:
    return b"this is no model, it only says that it is one\n" * 50


@attack("not_onnx")
def noise() -> bytes:
    return np.random.default_rng(7).bytes(100_000)


@attack("pickle_refused")
def pickled() -> bytes:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, ("raise SystemExit('a pickle was loaded')",)

    return pickle.dumps(Payload())


@attack("pickle_refused")
def torch_archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled())
    return file.getvalue()


@attack("not_onnx")
def no_graph() -> bytes:
    return onnx.ModelProto(ir_version=8, producer_name="nobody").SerializeToString()


@attack("tensor_too_large")
def constant_of_shape_bomb() -> bytes:
    """160 GB from about a hundred bytes."""
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["b"]), helper.make_node("Add", ["x", "b"], ["y"])]
    return _model(nodes, {"s": np.array([200_000, 200_000], np.int64)}, [1, 1]).SerializeToString()


@attack("tensor_too_large")
def expand_bomb_behind_arithmetic() -> bytes:
    """The size is worked out by the graph itself."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Mul", ["s", "factor"], ["big"]),
        helper.make_node("Expand", ["x", "big"], ["y"]),
    ]
    return _model(nodes, {"factor": np.array([300_000, 300_000], np.int64)}, [1, 1]).SerializeToString()


@attack("tensor_too_large", "too_much_memory", "model_does_not_run")
def bomb_hidden_from_inference() -> bytes:
    """The size is data that only a run can tell."""
    nodes = [
        helper.make_node("NonZero", ["x"], ["places"]),
        helper.make_node("Shape", ["places"], ["s"]),
        helper.make_node("Mul", ["s", "factor"], ["big"]),
        helper.make_node("ConstantOfShape", ["big"], ["y"]),
    ]
    return _model(nodes, {"factor": np.array([200_000, 200_000], np.int64)}, [1, 4]).SerializeToString()


@attack("tensor_too_large")
def giant_input() -> bytes:
    return _model([_relu()], shape=[1, 1_000_000, 1_000_000]).SerializeToString()


@attack("too_much_memory")
def many_large_tensors() -> bytes:
    nodes = [helper.make_node("Expand", ["x", "s"], [f"y{i}"]) for i in range(40)]
    return _model(nodes, {"s": np.array([4000, 32_000], np.int64)}, [1, 1]).SerializeToString()


@attack("external_data")
def external_data_outside() -> bytes:
    model = _model([_relu()], {"w": np.zeros(4, np.float32)})
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/passwd")
    return model.SerializeToString()


@attack("external_data")
def external_data_in_an_attribute() -> bytes:
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/shadow")
    constant = helper.make_node("Constant", [], ["c"], value=tensor)
    return _model([constant, helper.make_node("Add", ["x", "c"], ["y"])]).SerializeToString()


@attack("unknown_domain")
def unknown_domain() -> bytes:
    model = _model([helper.make_node("Backdoor", ["x"], ["y"], "evil", domain="com.example.evil")])
    model.opset_import.add(domain="com.example.evil", version=1)
    return model.SerializeToString()


@attack("functions_refused")
def recursive_function() -> bytes:
    """A function that calls itself."""
    function = helper.make_function(
        "local", "again", ["a"], ["b"], [helper.make_node("again", ["a"], ["b"], domain="local")], []
    )
    function.opset_import.add(domain="local", version=1)
    model = _model([helper.make_node("again", ["x"], ["y"], domain="local")], functions=[function])
    model.opset_import.add(domain="local", version=1)
    return model.SerializeToString()


@attack("runtime_layout")
def saved_for_one_kind_of_processor() -> bytes:
    """As ONNX Runtime saves a model at its highest level of optimisation."""
    convolution = helper.make_node("Conv", ["x", "w"], ["y"], "conv", domain="com.microsoft.nchwc")
    model = _model([convolution], {"w": np.zeros((16, 3, 3, 3), np.float32)}, [1, 3, 8, 8])
    model.opset_import.add(domain="com.microsoft.nchwc", version=1)
    return model.SerializeToString()


@attack("training_info_refused")
def training_info() -> bytes:
    model = _model([_relu()])
    model.training_info.add().algorithm.name = "steps"
    return model.SerializeToString()


def _nested(depth: int) -> onnx.ModelProto:
    body = helper.make_graph(
        [_relu("inner")], "body", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    )
    for level in range(depth):
        branch = helper.make_node("If", ["flag"], [f"y{level}"], f"if{level}", then_branch=body, else_branch=body)
        body = helper.make_graph(
            [branch], "body", [], [helper.make_tensor_value_info(f"y{level}", TensorProto.FLOAT, None)]
        )
        del body.node[0].attribute[1:]  # one branch: two would double the size at each level
    return _model([*body.node], {"flag": np.array(True)})


@attack("too_deep")
def nested_bodies() -> bytes:
    return _nested(12).SerializeToString()


@attack("not_onnx", "too_deep")
def nested_beyond_the_parser() -> bytes:
    """So deep that a recursive parser without a limit would overflow its stack: 20,000 graphs within graphs."""
    data = b""
    for _ in range(20_000):
        for tag in (0x32, 0x2A, 0x0A):  # an attribute's graph, in a node's attribute, in a graph's node
            data = bytes([tag]) + _varint(len(data)) + data
    return b"\x08\x08" + b"\x3a" + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


@attack("name_too_long")
def huge_name() -> bytes:
    return _model([_relu("n" * 5_000_000)]).SerializeToString()


@attack("name_too_long")
def huge_tensor_name() -> bytes:
    return _model([_relu(output="y" * 100_000)]).SerializeToString()


@attack("too_many_nodes")
def many_nodes() -> bytes:
    """Empty nodes are two bytes each in the file and a hundred in memory."""
    graph = b"\x0a\x00" * 150_000
    return b"\x08\x08" + b"\x3a" + _varint(len(graph)) + graph


@attack("too_many_edges")
def many_edges() -> bytes:
    node = helper.make_node("Sum", ["x"] * 1_200_000, ["y"])
    return _model([node]).SerializeToString()


@attack("model_does_not_load")
def cycle() -> bytes:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    return _model(nodes).SerializeToString()


@attack("model_does_not_load")
def unknown_operator() -> bytes:
    return _model([helper.make_node("FormatDisk", ["x"], ["y"])]).SerializeToString()


@attack("model_does_not_load")
def weights_shorter_than_their_shape() -> bytes:
    model = _model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": np.zeros((4, 4), np.float32)})
    model.graph.initializer[0].dims[0] = 4_000_000
    return model.SerializeToString()


@attack("model_does_not_load")
def negative_dimension() -> bytes:
    model = _model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": np.zeros((4, 4), np.float32)})
    model.graph.initializer[0].dims[0] = -4
    return model.SerializeToString()


@attack("model_does_not_run", "inspection_timeout")
def endless_loop() -> bytes:
    """A Loop that counts to 2^62: it passes every check, and runs for ever."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Relu", ["v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, None),
        ],
    )
    loop = helper.make_node("Loop", ["times", "", "x"], ["y"], "loop", body=body)
    return _model([loop], {"times": np.array(2**62, np.int64)}).SerializeToString()


@attack("weights_not_finite")
def diverged_weights() -> bytes:
    weight = np.ones((4, 4), dtype=np.float32)
    weight[1, 2] = np.nan
    return _model([helper.make_node("MatMul", ["x", "w"], ["y"], "product")], {"w": weight}).SerializeToString()


@attack("model_does_not_load", "invalid_graph")
def padding_of_no_sense() -> bytes:
    """Looked at before ONNX Runtime does: a Pad before a MaxPool, without inputs, or with a value of too few bytes."""
    nodes = [
        helper.make_node("Pad", [], ["a"]),
        helper.make_node("Pad", ["x", "x", "zero"], ["b"], mode=3),
        helper.make_node("Pad", ["b", "x", "zero"], ["c"]),
        helper.make_node("MaxPool", ["a"], ["d"], kernel_shape=[2]),
        helper.make_node("MaxPool", ["c"], ["y"], kernel_shape=[2]),
    ]
    model = _model(nodes, {"zero": np.zeros(1, dtype=np.float32)})
    model.graph.initializer[0].raw_data = b"0"
    return model.SerializeToString()
