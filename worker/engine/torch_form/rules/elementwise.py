"""Elementwise arithmetic, comparison and logic with broadcasting."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from worker.engine.torch_form.operation import PYTHON_RANK, TORCH_DTYPES, Operation, Scalar, Value
from worker.engine.torch_form.registry import implements

_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Equal": operator.eq,
    "Less": operator.lt,
    "LessOrEqual": operator.le,
    "Greater": operator.gt,
    "GreaterOrEqual": operator.ge,
    "And": operator.and_,
    "Or": operator.or_,
    "Xor": operator.xor,
    "BitwiseAnd": operator.and_,
    "BitwiseOr": operator.or_,
    "BitwiseXor": operator.xor,
}

_UNARY: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitwiseNot": torch.bitwise_not,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
}


@implements(*_BINARY)
def binary(op: Operation) -> Value:
    return op.call(_BINARY[op.op], *operands(op))


@implements(*_UNARY)
def unary(op: Operation) -> Value:
    return op.call(_UNARY[op.op], op.tensor(0))


@implements("Div")
def div(op: Operation) -> Value:
    """Integers divide towards zero."""
    is_float = op.is_float(0) if op.is_float(0) is not None else op.is_float(1)
    left, right = operands(op)
    return op.call(operator.truediv if is_float else divide, left, right)


@implements("Mod")
def mod(op: Operation) -> Value:
    """The sign of the divisor, or with `fmod` of the dividend."""
    return op.call(torch.fmod if op.attribute("fmod", 0) else torch.remainder, op.tensor(0), op.tensor(1))


@implements("Pow")
def power(op: Operation) -> Value:
    """The result has the base's type."""
    base, exponent = op.tensor(0), op.operand(1)
    if op.is_float(0) and isinstance(exponent, int | float):
        return op.call(torch.pow, base, exponent)
    return op.call(power_of_base_type, base, exponent)


@implements("Sum")
def sum_of_all(op: Operation) -> Value:
    return _reduce_inputs(op, operator.add)


@implements("Max")
def maximum(op: Operation) -> Value:
    return _reduce_inputs(op, torch.maximum)


@implements("Min")
def minimum(op: Operation) -> Value:
    return _reduce_inputs(op, torch.minimum)


@implements("Mean")
def mean_of_all(op: Operation) -> Value:
    return op.call(operator.truediv, _reduce_inputs(op, operator.add), len(op.inputs))


@implements("Clip")
def clip(op: Operation) -> Value:
    """Bounds are attributes up to opset 10, inputs later; a missing bound is no bound."""
    x = op.tensor(0)
    bounds: list[Value | Scalar | None]
    if op.opset < 11:
        bounds = [op.attribute("min"), op.attribute("max")]
    else:
        bounds = [op.operand(i) if op.has(i) else None for i in (1, 2)]
    if all(b is None for b in bounds):
        return x
    return op.call(torch.clamp, x, *bounds)


@implements("Where")
def where(op: Operation) -> Value:
    return op.call(torch.where, op.tensor(0), op.tensor(1), op.tensor(2))


@implements("BitShift")
def bit_shift(op: Operation) -> Value:
    shift = operator.lshift if op.attribute("direction") == "LEFT" else operator.rshift
    return op.call(shift, op.tensor(0), op.tensor(1))


@implements("IsInf")
def is_inf(op: Operation) -> Value:
    positive, negative = op.attribute("detect_positive", 1), op.attribute("detect_negative", 1)
    if positive and negative:
        return op.call(torch.isinf, op.tensor(0))
    return op.call(torch.isposinf if positive else torch.isneginf, op.tensor(0))


@implements("Cast")
def cast(op: Operation) -> Value:
    to = TORCH_DTYPES.get(op.attribute("to"))
    if to is None:
        raise op.unsupported(f"it casts to element type {op.attribute('to')}")
    if op.input_types[0].elem_type is not None and TORCH_DTYPES.get(op.input_types[0].elem_type) == to:
        return op.tensor(0)
    return op.call(cast_to, op.tensor(0), to)


@implements("CastLike")
def cast_like(op: Operation) -> Value:
    """A constant stays one where the type is known: torch.export casts a bias of zeros like the layer's input."""
    to = TORCH_DTYPES.get(op.input_types[1].elem_type or 0)
    if to is not None and to.is_floating_point:
        return op.call(cast_to, op.tensor(0), to)
    return op.call(torch.Tensor.type_as, op.tensor(0), op.tensor(1))


def operands(op: Operation) -> tuple[Value | Scalar, Value | Scalar]:
    """Both inputs of a binary op; a scalar beside a run-time tensor stays a Python number."""
    left = op.operand(0) if _is_run_time_tensor(op.given(1)) else op.tensor(0)
    right = op.operand(1) if _is_run_time_tensor(op.given(0)) else op.tensor(1)
    return left, right


def divide(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Division of a type known only at run time."""
    quotient = torch.true_divide(left, right)
    either = left if isinstance(left, torch.Tensor) else right
    return quotient if either.is_floating_point() else torch.div(left, right, rounding_mode="trunc")


def power_of_base_type(base: torch.Tensor, exponent: torch.Tensor | float) -> torch.Tensor:
    return torch.pow(base, exponent).to(base.dtype)


def cast_to(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return x.to(dtype)


def _reduce_inputs(op: Operation, combine: Callable[[Any, Any], Any]) -> Value:
    total = op.tensor(0)
    for index in range(1, len(op.inputs)):
        total = op.call(combine, total, op.tensor(index))
    return total


def _is_run_time_tensor(value: Value) -> bool:
    return isinstance(value, fx.Node) and PYTHON_RANK not in value.meta
