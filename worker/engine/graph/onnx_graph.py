"""A read-only view of an ONNX graph: nodes, who makes and who uses each tensor, and the constants."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from worker.engine.errors import EngineError

Array = npt.NDArray[Any]


def load_model(path: Path | str) -> onnx.ModelProto:
    """Read an ONNX file without touching external data. Raises EngineError where the bytes are no ONNX model."""
    try:
        return onnx.load(str(path), load_external_data=False)
    except DecodeError as error:
        raise EngineError(
            "not_onnx", f"The file cannot be read as an ONNX model: {error}", "Export the model to ONNX again."
        ) from error


def attribute(node: onnx.NodeProto, name: str, default: object = None) -> Any:  # noqa: ANN401  (any attribute type)
    """The value of a node's attribute, or the default."""
    for a in node.attribute:
        if a.name == name:
            return onnx.helper.get_attribute_value(a)
    return default


def int_attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return int(attribute(node, name, default))


def ints_attribute(node: onnx.NodeProto, name: str) -> list[int] | None:
    value = attribute(node, name)
    return None if value is None else [int(v) for v in value]


def node_label(node: onnx.NodeProto) -> str:
    """How a node is named to the user: its name, or its first output where it has none."""
    return node.name or next((o for o in node.output if o), node.op_type)


def captured_names(node: onnx.NodeProto) -> set[str]:
    """Names that a control-flow node's bodies mention; a superset of what they capture from outside."""
    names: set[str] = set()
    for a in node.attribute:
        for body in [a.g] if a.type == onnx.AttributeProto.GRAPH else a.graphs:
            for inner in body.node:
                names.update(inner.input)
                names |= captured_names(inner)
            names.update(o.name for o in body.output)
    return names


class OnnxGraph:
    """Nodes, producers, consumers and constants of the main graph. Initializers, Constant nodes and initializers
    that are also graph inputs are all `constants`."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.proto = model.graph
        self.nodes: list[onnx.NodeProto] = list(self.proto.node)
        self.opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
        self.constants: dict[str, onnx.TensorProto] = {t.name: t for t in self.proto.initializer}
        self.producer: dict[str, int] = {}
        self.consumers: dict[str, list[tuple[int, int]]] = {}
        for index, node in enumerate(self.nodes):
            for name in node.output:
                if name:
                    self.producer[name] = index
            for position, name in enumerate(node.input):
                if name:
                    self.consumers.setdefault(name, []).append((index, position))
            if node.op_type == "Constant" and (tensor := _constant_tensor(node)) is not None:
                self.constants[node.output[0]] = tensor
        self.inputs = [i for i in self.proto.input if i.name not in self.constants]
        self.outputs = [o.name for o in self.proto.output]
        self._arrays: dict[str, Array] = {}

    def array(self, name: str) -> Array:
        """The value of a constant."""
        if name not in self._arrays:
            self._arrays[name] = numpy_helper.to_array(self.constants[name])
        return self._arrays[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a constant."""
        return tuple(self.constants[name].dims)

    def captured(self) -> Iterator[tuple[onnx.NodeProto, str]]:
        """(control-flow node, name) for each outer tensor that its bodies mention."""
        for node in self.nodes:
            for name in sorted(captured_names(node)):
                if name in self.producer or name in self.constants:
                    yield node, name


def _constant_tensor(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The tensor of a Constant node, whichever attribute holds it; None for strings and sparse tensors."""
    for a in node.attribute:
        if a.name == "value":
            tensor: onnx.TensorProto = a.t
            return tensor
        if a.name in ("value_float", "value_floats"):
            value = np.array(onnx.helper.get_attribute_value(a), dtype=np.float32)
        elif a.name in ("value_int", "value_ints"):
            value = np.array(onnx.helper.get_attribute_value(a), dtype=np.int64)
        else:
            continue
        return numpy_helper.from_array(value, node.output[0])
    return None
