"""One ONNX node as the op rules see it: attributes, inputs, and a way to emit torch calls.

A value is known either at build time (a `torch.Tensor`) or at run time (an `fx.Node`). `Operation.call` runs a torch
function at once when all its arguments are known, and emits it into the fx graph otherwise: so the same rule folds
constants and builds the graph. Small integer values that derive from shapes are run-time *Python* values (an int, or a
tuple of ints, instead of a tensor): such nodes carry their rank in `meta["python_rank"]`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import onnx
import torch
from onnx import TensorProto
from torch import fx

from worker.engine.errors import EngineError

Value: TypeAlias = fx.Node | torch.Tensor
Scalar: TypeAlias = int | float | bool
Argument: TypeAlias = Any  # what a torch call takes: values, numbers, strings, tuples of these
PYTHON_RANK = "python_rank"

# Half-precision values are computed in float32: the torch form trains them as master weights.
TORCH_DTYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float32,
    TensorProto.BFLOAT16: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.BOOL: torch.bool,
    TensorProto.INT8: torch.int8,
    TensorProto.UINT8: torch.uint8,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    # Torch has few kernels for wide unsigned integers; the next wider signed type holds their everyday values.
    TensorProto.UINT16: torch.int32,
    TensorProto.UINT32: torch.int64,
    TensorProto.UINT64: torch.int64,
}


@dataclass(frozen=True)
class StaticType:
    """What shape inference knows about a value; None where it knows nothing."""

    elem_type: int | None = None
    shape: tuple[int | str | None, ...] | None = None


class Surroundings(Protocol):
    """The graph under construction, which an operation adds to."""

    anchor: fx.Node
    training: fx.Node
    batch: int | None  # the first dimension of the first input, where the model fixes it

    def emit(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.Node:
        """Add a call."""

    def buffer(self, tensor: torch.Tensor) -> fx.Node:
        """Make a known tensor readable at run time."""

    def running_average(self, node: onnx.NodeProto, index: int) -> fx.Node | None:
        """Give a node a buffer of its own for a statistic that training moves; None if its value is not stored."""


class Operation:
    """A node under construction. `inputs` are values, None where an optional input is absent."""

    def __init__(
        self,
        node: onnx.NodeProto,
        opset: int,
        inputs: tuple[Value | None, ...],
        input_types: tuple[StaticType, ...],
        surroundings: Surroundings,
    ) -> None:
        self.op = node.op_type
        self.name = node.name or (node.output[0] if node.output else node.op_type)
        self.proto = node
        self.opset = opset
        self.inputs = inputs
        self.input_types = input_types
        self.anchor = surroundings.anchor  # a graph input: says which device values made at run time belong on
        self.training = surroundings.training  # the module's training flag
        self._batch = surroundings.batch
        self._emit = surroundings.emit
        self._buffer = surroundings.buffer
        self._running_average = surroundings.running_average
        self._attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}

    def attribute(self, name: str, default: Argument = None) -> Argument:
        """An attribute as Python value: ints and floats as tuples, strings decoded."""
        value = self._attributes.get(name, default)
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, list):
            return tuple(v.decode() if isinstance(v, bytes) else v for v in value)
        return value

    def has(self, index: int) -> bool:
        """Whether the optional input is there."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def given(self, index: int) -> Value:
        """An input that must be there, as it is: known, run-time tensor, or run-time Python value."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            raise self.unsupported(f"input {index} is missing")
        return value

    def tensor(self, index: int) -> Value:
        """An input as tensor: run-time Python values are turned into one."""
        value = self.given(index)
        if isinstance(value, fx.Node) and PYTHON_RANK in value.meta:
            elem_type = self.input_types[index].elem_type
            return self._emit(tensor_of, (value, TORCH_DTYPES.get(elem_type or 0), self.anchor), {})
        return value

    def optional(self, index: int) -> Value | None:
        """An optional input as tensor."""
        return self.tensor(index) if self.has(index) else None

    def operand(self, index: int) -> Value | Scalar:
        """An input of an elementwise op: a scalar stays a Python number, which torch applies without a tensor."""
        value = self.given(index)
        if isinstance(value, fx.Node):
            return value if value.meta.get(PYTHON_RANK) == 0 else self.tensor(index)
        return value.item() if value.ndim == 0 else value

    def known(self, index: int) -> torch.Tensor | None:
        """An input if it is known at build time."""
        value = self.given(index) if self.has(index) else None
        return value if isinstance(value, torch.Tensor) else None

    def scalar(self, index: int, default: Scalar) -> Scalar:
        """A scalar input that must be known at build time."""
        if not self.has(index):
            return default
        value = self.known(index)
        if value is None:
            raise self.unsupported(f"input {index} is not a constant")
        return value.reshape(-1)[0].item()

    def integers(self, index: int) -> tuple[int, ...] | fx.Node:
        """A list of integers such as a shape: a tuple, or a run-time node that yields one."""
        value = self.given(index)
        if isinstance(value, torch.Tensor):
            return tuple(int(v) for v in value.reshape(-1).tolist())
        if value.meta.get(PYTHON_RANK) == 1:
            return value
        return self._emit(integers_of, (value,), {})

    def numbers(self, index: int) -> tuple[float, ...] | fx.Node:
        """A list of numbers such as scales: a tuple, or a run-time node that yields one."""
        value = self.given(index)
        if isinstance(value, torch.Tensor):
            return tuple(float(v) for v in value.reshape(-1).tolist())
        if value.meta.get(PYTHON_RANK) == 1:
            return value
        return self._emit(numbers_of, (value,), {})

    def number(self, index: int) -> Scalar | fx.Node:
        """A scalar: a Python number, or a run-time node that yields one."""
        value = self.given(index)
        if isinstance(value, torch.Tensor):
            return value.reshape(-1)[0].item()
        if value.meta.get(PYTHON_RANK) == 0:
            return value
        return self._emit(number_of, (value,), {})

    def anchor_unless_known(self, *indices: int) -> fx.Node | None:
        """The graph input beside which a new tensor is made at run time; None while all these inputs are known."""
        return None if all(isinstance(self.given(i), torch.Tensor) for i in indices) else self.anchor

    def axes(self, index: int, default: tuple[int, ...] | None = None) -> tuple[int, ...] | None:
        """Axes that were an attribute in earlier opsets and are an input (which must be constant) in later ones."""
        attribute = self.attribute("axes")
        if attribute is not None:
            return tuple(attribute)
        if not self.has(index):
            return default
        found = self.integers(index)
        if isinstance(found, fx.Node):
            raise self.unsupported("its axes are computed at run time")
        return found

    def rank(self, index: int) -> int | None:
        """The rank of an input, if it is known before running."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if isinstance(value, torch.Tensor):
            return value.ndim
        if isinstance(value, fx.Node) and PYTHON_RANK in value.meta:
            return int(value.meta[PYTHON_RANK])
        shape = self.input_types[index].shape if index < len(self.input_types) else None
        return None if shape is None else len(shape)

    def batch_size(self, index: int) -> int | None:
        """The first dimension of a run-time input if it is the batch size that the model was exported with. Rules
        follow the actual batch there, as a model that is fixed to one sample could not be trained."""
        shape = self.input_types[index].shape
        value = self.inputs[index]
        if not isinstance(value, fx.Node) or PYTHON_RANK in value.meta or value.op == "get_attr":
            return None
        return self._batch if shape and shape[0] == self._batch else None

    def is_float(self, index: int) -> bool | None:
        """Whether an input holds floating-point numbers, if that is known before running."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if isinstance(value, torch.Tensor):
            return value.is_floating_point()
        elem_type = self.input_types[index].elem_type if index < len(self.input_types) else None
        return None if elem_type not in TORCH_DTYPES else TORCH_DTYPES[elem_type].is_floating_point

    def call(self, function: Callable[..., Any], *args: Argument, **kwargs: Argument) -> Value:
        """Apply a torch function: now if everything is known, in the fx graph otherwise."""
        if not _any_node(args) and not _any_node(tuple(kwargs.values())):
            with torch.no_grad():
                result: Value = function(*args, **kwargs)
            return result
        return self._emit(function, _with_buffers(args, self._buffer), _with_buffers(kwargs, self._buffer))

    def unpack(self, value: Argument, count: int) -> tuple[Value, ...]:
        """The parts of a result that is a tuple of tensors."""
        return tuple(
            self._emit(operator.getitem, (value, i), {}) if isinstance(value, fx.Node) else value[i]
            for i in range(count)
        )

    def python(self, function: Callable[..., Any], *args: Argument, rank: int) -> fx.Node:
        """Emit a function of run-time values whose result is a Python number (rank 0) or a tuple of them (rank 1)."""
        node = self._emit(function, _with_buffers(args, self._buffer), {})
        node.meta[PYTHON_RANK] = rank
        return node

    def running_average(self, index: int) -> fx.Node | None:
        """A statistic that training updates in place and `write_back` stores; None where it is computed at run time."""
        return self._running_average(self.proto, index)

    def unsupported(self, reason: str) -> EngineError:
        """The error for a node that ONNX allows and this rule does not handle."""
        return EngineError(
            "unsupported_op",
            f"{self.op} cannot be trained: {reason}.",
            "Prune this model without finetuning, or export it again without this construct.",
            node=self.name,
        )


def tensor_of(value: Argument, dtype: torch.dtype | None, anchor: torch.Tensor) -> torch.Tensor:
    """A Python number or tuple as tensor beside `anchor`."""
    if dtype is None:
        first = value[0] if isinstance(value, tuple) and value else value
        dtype = torch.float32 if isinstance(first, float) else torch.bool if isinstance(first, bool) else torch.int64
    return torch.tensor(value, dtype=dtype, device=anchor.device)


def integers_of(tensor: torch.Tensor | int) -> tuple[int, ...]:
    """A run-time tensor of integers as tuple."""
    return tuple(tensor.reshape(-1).tolist()) if isinstance(tensor, torch.Tensor) else (tensor,)


def numbers_of(tensor: torch.Tensor | float) -> tuple[float, ...]:
    """A run-time tensor of numbers as tuple."""
    return tuple(tensor.reshape(-1).tolist()) if isinstance(tensor, torch.Tensor) else (tensor,)


def number_of(tensor: torch.Tensor | tuple[float, ...]) -> float:
    """A run-time tensor of one element as number."""
    return tensor.item() if isinstance(tensor, torch.Tensor) else tensor[0]


def known_tensor(array: np.ndarray) -> torch.Tensor:
    """A constant as torch computes with it: half precision widened to float32, odd integers to common ones."""
    if array.dtype.name in {"float16", "bfloat16"} or array.dtype.name.startswith("float8"):
        array = array.astype(np.float32)
    elif array.dtype.name in {"uint16", "uint4", "int4", "uint2", "int2"}:
        array = array.astype(np.int32 if array.dtype.name == "uint16" else np.int8)
    elif array.dtype.name in {"uint32", "uint64"}:
        array = array.astype(np.int64)
    return torch.from_numpy(np.array(array, order="C"))


def _any_node(values: Argument) -> bool:
    if isinstance(values, tuple | list):
        return any(_any_node(v) for v in values)
    return isinstance(values, fx.Node)


def _with_buffers(values: Argument, buffer: Callable[[torch.Tensor], fx.Node]) -> Argument:
    if isinstance(values, dict):
        return {key: _with_buffers(v, buffer) for key, v in values.items()}
    if isinstance(values, tuple | list):
        return tuple(_with_buffers(v, buffer) for v in values)
    return buffer(values) if isinstance(values, torch.Tensor) else values
