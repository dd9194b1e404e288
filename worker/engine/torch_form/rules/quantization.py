"""Quantisation, kept differentiable: a value that is quantised and dequantised passes its gradient straight through."""

from __future__ import annotations

import onnx
import torch
from onnx import TensorProto

from worker.engine.torch_form.operation import TORCH_DTYPES, Operation, Value
from worker.engine.torch_form.registry import implements


@implements("QuantizeLinear")
def quantize_linear(op: Operation) -> Value:
    """The quantised integers, held as floating-point numbers so that gradients pass (arXiv:1308.3432)."""
    x, scale, zero = op.tensor(0), op.tensor(1), op.optional(2)
    elem_type = op.attribute("output_dtype", 0) or (op.input_types[2].elem_type if op.has(2) else TensorProto.UINT8)
    low, high = _range(op, elem_type or TensorProto.UINT8)
    return op.call(quantize, x, scale, zero, op.attribute("axis", 1), op.attribute("block_size", 0), low, high)


@implements("DequantizeLinear")
def dequantize_linear(op: Operation) -> Value:
    x, scale, zero = op.tensor(0), op.tensor(1), op.optional(2)
    return op.call(dequantize, x, scale, zero, op.attribute("axis", 1), op.attribute("block_size", 0))


def quantize(
    x: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor | None,
    axis: int,
    block: int,
    low: int,
    high: int,
) -> torch.Tensor:
    scale, zero = _along(x, scale, axis, block), None if zero is None else _along(x, zero, axis, block)
    exact = x / scale
    levels = exact + (exact.round() - exact).detach()  # rounded, with the gradient of x / scale
    return (levels if zero is None else levels + zero.to(x.dtype)).clamp(low, high)


def dequantize(x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None, axis: int, block: int) -> torch.Tensor:
    levels = x.to(scale.dtype)
    levels = levels if zero is None else levels - _along(x, zero, axis, block).to(scale.dtype)
    return levels * _along(x, scale, axis, block)


def _along(x: torch.Tensor, values: torch.Tensor, axis: int, block: int) -> torch.Tensor:
    """One value for all, one per index of `axis`, or one per block of it, shaped to broadcast over x."""
    if block:
        return values.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    if values.dim() == 0 or values.numel() == 1:
        return values.reshape(())
    shape = [1] * x.dim()
    shape[axis] = -1
    return values.reshape(shape)


def _range(op: Operation, elem_type: int) -> tuple[int, int]:
    name = onnx.helper.tensor_dtype_to_string(elem_type).rsplit(".", 1)[-1].lower()
    if elem_type not in TORCH_DTYPES and "int" not in name:
        raise op.unsupported(f"it quantises to {name}")
    bits = int(name.removeprefix("u").removeprefix("int"))
    return (0, 2**bits - 1) if name.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
