"""Arithmetic on shapes: integers and short tuples of them, computed as Python values at run time.

A shape chain (Shape, Gather, Mul, Concat, Reshape ...) thus costs no tensor, stays on the host, and can be traced with
symbolic sizes. Values of rank 2 and more take the rules on tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import fx

from worker.engine.torch_form.operation import PYTHON_RANK, TORCH_DTYPES, Argument, Operation
from worker.engine.torch_form.registry import implements_on_python_values

Number: TypeAlias = Any  # int, float, bool, or a symbolic one while torch traces
Python: TypeAlias = Number | tuple[Number, ...]

MAX_LENGTH = 64  # longer constants are data, not shapes


def _truncated(a: Number, b: Number) -> Number:
    if isinstance(a, float) or isinstance(b, float):
        return a / b
    return a // b if (a >= 0) == (b >= 0) else -(-a // b)


_ELEMENTWISE: dict[str, Callable[..., Number]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": _truncated,
    "Mod": lambda a, b: a % b,
    "Pow": lambda a, b: type(a)(a**b),
    "Equal": lambda a, b: a == b,
    "Less": lambda a, b: a < b,
    "LessOrEqual": lambda a, b: a <= b,
    "Greater": lambda a, b: a > b,
    "GreaterOrEqual": lambda a, b: a >= b,
    "And": lambda a, b: a and b,
    "Or": lambda a, b: a or b,
    "Not": lambda a: not a,
    "Neg": lambda a: -a,
    "Abs": abs,
    "Sqrt": lambda a: math.sqrt(a),
    "Reciprocal": lambda a: 1 / a,
    "Floor": lambda a: float(math.floor(a)),
    "Ceil": lambda a: float(math.ceil(a)),
    "Where": lambda a, b, c: b if a else c,
    "Max": max,
    "Min": min,
}

_REDUCTIONS: dict[str, Callable[[tuple[Number, ...]], Number]] = {
    "ReduceProd": math.prod,
    "ReduceSum": sum,
    "ReduceMax": max,
    "ReduceMin": min,
}


def _broadcasting(name: str, function: Callable[..., Number]) -> Callable[..., Python]:
    """The function on numbers, applied to numbers and tuples alike."""

    def apply(*values: Python) -> Python:
        lengths = [len(v) for v in values if isinstance(v, tuple)]
        if not lengths:
            return function(*values)
        rows = [v * max(lengths) if isinstance(v, tuple) and len(v) == 1 else v for v in values]
        return tuple(
            function(*(r[i] if isinstance(r, tuple) else r for r in rows))
            for i in range(max(lengths) if all(lengths) else 0)
        )

    apply.__name__ = apply.__qualname__ = f"python_{name.lower()}"
    return apply


_BROADCAST = {name: _broadcasting(name, function) for name, function in _ELEMENTWISE.items()}


@implements_on_python_values(*_ELEMENTWISE)
def elementwise(op: Operation) -> fx.Node | None:
    values = [_python_input(op, i) for i in range(len(op.inputs))]
    if any(v is None for v in values) or (op.op == "Mod" and op.attribute("fmod", 0)):
        return None
    return op.python(_BROADCAST[op.op], *values, rank=max(_rank(v) for v in values))


@implements_on_python_values("Cast")
def cast(op: Operation) -> fx.Node | None:
    dtype = TORCH_DTYPES.get(op.attribute("to"))
    value = _python_input(op, 0)
    if dtype is None or value is None:
        return None
    kind = to_floats if dtype.is_floating_point else to_booleans if dtype == torch.bool else to_integers
    return op.python(kind, value, rank=_rank(value))


@implements_on_python_values("Gather")
def gather(op: Operation) -> fx.Node | None:
    value, index = _python_input(op, 0), _python_input(op, 1)
    if value is None or index is None or _rank(value) != 1:
        return None
    return op.python(pick, value, index, rank=_rank(index))


@implements_on_python_values("Slice")
def slice_(op: Operation) -> fx.Node | None:
    value = _python_input(op, 0)
    if value is None or _rank(value) != 1:
        return None
    if op.opset < 10:
        bounds: tuple[Any, ...] = (op.attribute("starts"), op.attribute("ends"), (1,))
    else:
        bounds = (op.integers(1), op.integers(2), op.integers(4) if op.has(4) else (1,))
    return op.python(cut, value, *bounds, rank=1)


@implements_on_python_values("Concat")
def concat(op: Operation) -> fx.Node | None:
    values = [_python_input(op, i) for i in range(len(op.inputs))]
    if any(v is None or _rank(v) != 1 for v in values):
        return None
    return op.python(joined, *values, rank=1)


@implements_on_python_values("Unsqueeze")
def unsqueeze(op: Operation) -> fx.Node | None:
    value = _python_input(op, 0)
    if value is None or _rank(value) != 0 or len(op.axes(1) or ()) != 1:
        return None
    return op.python(as_tuple, value, rank=1)


@implements_on_python_values("Squeeze")
def squeeze(op: Operation) -> fx.Node | None:
    value = _python_input(op, 0)
    return None if value is None or _rank(value) != 1 else op.python(only_element, value, rank=0)


@implements_on_python_values("Reshape")
def reshape(op: Operation) -> fx.Node | None:
    """Only what keeps (or makes) a list: anything else needs a tensor."""
    value = _python_input(op, 0)
    if value is None or op.known(1) is None:
        return None
    wanted = op.integers(1)
    if wanted == (-1,) or (wanted == (1,) and _rank(value) == 0):
        return op.python(as_tuple, value, rank=1)
    return op.python(only_element, value, rank=0) if wanted == () else None


@implements_on_python_values(*_REDUCTIONS)
def reduce(op: Operation) -> fx.Node | None:
    value = _python_input(op, 0)
    if value is None or _rank(value) != 1:
        return None
    reduced = op.python(_REDUCED[op.op], value, rank=0)
    return op.python(as_tuple, reduced, rank=1) if op.attribute("keepdims", 1) else reduced


def to_integers(value: Python) -> Python:
    return tuple(int(v) for v in value) if isinstance(value, tuple) else int(value)


def to_floats(value: Python) -> Python:
    return tuple(float(v) for v in value) if isinstance(value, tuple) else float(value)


def to_booleans(value: Python) -> Python:
    return tuple(bool(v) for v in value) if isinstance(value, tuple) else bool(value)


def pick(values: tuple[Number, ...], index: Python) -> Python:
    return tuple(values[i] for i in index) if isinstance(index, tuple) else values[index]


def cut(values: tuple[Number, ...], start: tuple[int, ...], end: tuple[int, ...], step: tuple[int, ...]) -> Python:
    stop = None if step[0] < 0 and end[0] < -len(values) else end[0]
    return values[start[0] : stop : step[0]]


def joined(*parts: tuple[Number, ...]) -> tuple[Number, ...]:
    return tuple(v for part in parts for v in part)


def as_tuple(value: Python) -> tuple[Number, ...]:
    return value if isinstance(value, tuple) else (value,)


def only_element(value: Python) -> Number:
    return value[0] if isinstance(value, tuple) else value


def _over_tuple(name: str, function: Callable[[tuple[Number, ...]], Number]) -> Callable[[tuple[Number, ...]], Number]:
    def apply(values: tuple[Number, ...]) -> Number:
        return function(values)

    apply.__name__ = apply.__qualname__ = f"python_{name.lower()}"
    return apply


_REDUCED = {name: _over_tuple(name, function) for name, function in _REDUCTIONS.items()}


def _python_input(op: Operation, index: int) -> Argument:
    """An input as Python value: a run-time node, or a short constant of rank 0 or 1; None where it is neither."""
    value = op.given(index)
    if isinstance(value, fx.Node):
        return value if PYTHON_RANK in value.meta else None
    if value.ndim > 1 or value.numel() > MAX_LENGTH:
        return None
    return tuple(value.tolist()) if value.ndim else value.item()


def _rank(value: Argument) -> int:
    return int(value.meta[PYTHON_RANK]) if isinstance(value, fx.Node) else int(isinstance(value, tuple))
