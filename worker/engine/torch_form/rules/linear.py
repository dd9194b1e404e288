"""Matrix products and attention."""

from __future__ import annotations

import operator

import torch
import torch.nn.functional as F

from worker.engine.torch_form.operation import Operation, Value
from worker.engine.torch_form.registry import implements


@implements("MatMul")
def matmul(op: Operation) -> Value:
    return op.call(torch.matmul, op.tensor(0), op.tensor(1))


@implements("Gemm")
def gemm(op: Operation) -> Value:
    a, b, c = op.tensor(0), op.tensor(1), op.optional(2)
    alpha, beta = op.attribute("alpha", 1.0), op.attribute("beta", 1.0)
    if op.attribute("transA", 0):
        a = op.call(torch.t, a)
    transposed = bool(op.attribute("transB", 0))
    if alpha == 1 and beta == 1:
        weight = b if transposed else op.call(torch.t, b)
        if c is None or op.rank(2) == 1:
            return op.call(F.linear, a, weight, c)
        return op.call(operator.add, op.call(F.linear, a, weight), c)
    return op.call(general_product, a, op.call(torch.t, b) if transposed else b, c, alpha, beta)


@implements("Einsum")
def einsum(op: Operation) -> Value:
    return op.call(torch.einsum, op.attribute("equation"), *(op.tensor(i) for i in range(len(op.inputs))))


@implements("Det")
def det(op: Operation) -> Value:
    return op.call(torch.linalg.det, op.tensor(0))


def general_product(
    a: torch.Tensor, b: torch.Tensor, c: torch.Tensor | None, alpha: float, beta: float
) -> torch.Tensor:
    """alpha a b + beta c, with c of any shape that broadcasts."""
    product = alpha * (a @ b)
    return product if c is None else product + beta * c
