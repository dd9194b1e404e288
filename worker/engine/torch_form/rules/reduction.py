"""Reductions, searches, sorting and running sums."""

from __future__ import annotations

from collections.abc import Callable

import torch

from worker.engine.torch_form.operation import Operation, Value
from worker.engine.torch_form.registry import Result, implements

Reduction = Callable[[torch.Tensor, tuple[int, ...], bool], torch.Tensor]


def _sum(x: torch.Tensor, axes: tuple[int, ...], keep: bool) -> torch.Tensor:
    return x.sum(axes, keepdim=keep, dtype=x.dtype)


def _mean(x: torch.Tensor, axes: tuple[int, ...], keep: bool) -> torch.Tensor:
    return x.mean(axes, keepdim=keep) if x.is_floating_point() else x.sum(axes, keepdim=keep) // _count(x, axes)


def _amax(x: torch.Tensor, axes: tuple[int, ...], keep: bool) -> torch.Tensor:
    return x.amax(axes, keepdim=keep)


def _amin(x: torch.Tensor, axes: tuple[int, ...], keep: bool) -> torch.Tensor:
    return x.amin(axes, keepdim=keep)


def _prod(x: torch.Tensor, axes: tuple[int, ...], keep: bool) -> torch.Tensor:
    for axis in sorted((a % x.dim() for a in axes), reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _l1(x: torch.Tensor, axes: tuple[int, ...], keep: bool) -> torch.Tensor:
    return x.abs().sum(axes, keepdim=keep)


def _l2(x: torch.Tensor, axes: tuple[int, ...], keep: bool) -> torch.Tensor:
    return x.square().sum(axes, keepdim=keep).sqrt()


def _log_sum(x: torch.Tensor, axes: tuple[int, ...], keep: bool) -> torch.Tensor:
    return x.sum(axes, keepdim=keep).log()


def _log_sum_exp(x: torch.Tensor, axes: tuple[int, ...], keep: bool) -> torch.Tensor:
    return x.logsumexp(axes, keepdim=keep)


def _sum_square(x: torch.Tensor, axes: tuple[int, ...], keep: bool) -> torch.Tensor:
    return x.square().sum(axes, keepdim=keep)


_REDUCTIONS: dict[str, Reduction] = {
    "ReduceSum": _sum,
    "ReduceMean": _mean,
    "ReduceMax": _amax,
    "ReduceMin": _amin,
    "ReduceProd": _prod,
    "ReduceL1": _l1,
    "ReduceL2": _l2,
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceSumSquare": _sum_square,
}


@implements(*_REDUCTIONS)
def reduce(op: Operation) -> Value:
    """Axes are an attribute in earlier opsets (ReduceSum: up to 12, others: up to 17), an input later."""
    x, axes = op.tensor(0), op.axes(1)
    keep = bool(op.attribute("keepdims", 1))
    if not axes:
        if op.attribute("noop_with_empty_axes", 0):
            return x
        return op.call(reduce_all, x, op.op, keep)
    return op.call(_REDUCTIONS[op.op], x, axes, keep)


@implements("ArgMax", "ArgMin")
def arg_extreme(op: Operation) -> Value:
    function = torch.argmax if op.op == "ArgMax" else torch.argmin
    axis, keep = op.attribute("axis", 0), bool(op.attribute("keepdims", 1))
    if op.attribute("select_last_index", 0):
        return op.call(last_extreme, op.tensor(0), axis, keep, op.op == "ArgMax")
    return op.call(function, op.tensor(0), axis, keep)


@implements("TopK")
def top_k(op: Operation) -> Result:
    """k is an attribute up to opset 9, an input later."""
    k = op.attribute("k") if op.opset < 10 else op.number(1)
    options = op.attribute("axis", -1), bool(op.attribute("largest", 1)), bool(op.attribute("sorted", 1))
    return op.unpack(op.call(torch.topk, op.tensor(0), k, *options), 2)


@implements("NonZero")
def non_zero(op: Operation) -> Value:
    return op.call(non_zero_columns, op.tensor(0))


@implements("CumSum")
def cum_sum(op: Operation) -> Value:
    options = bool(op.attribute("exclusive", 0)), bool(op.attribute("reverse", 0))
    return op.call(running_sum, op.tensor(0), op.number(1), *options)


@implements("OneHot")
def one_hot(op: Operation) -> Value:
    return op.call(one_hot_vectors, op.tensor(0), op.number(1), op.tensor(2), op.attribute("axis", -1))


def reduce_all(x: torch.Tensor, reduction: str, keep: bool) -> torch.Tensor:
    return _REDUCTIONS[reduction](x, tuple(range(x.dim())), keep) if x.dim() else x


def last_extreme(x: torch.Tensor, axis: int, keep: bool, largest: bool) -> torch.Tensor:
    flipped = x.flip(axis)
    first = flipped.argmax(axis, keep) if largest else flipped.argmin(axis, keep)
    return x.shape[axis] - 1 - first


def non_zero_columns(x: torch.Tensor) -> torch.Tensor:
    return x.nonzero().t()


def running_sum(x: torch.Tensor, axis: int, exclusive: bool, reverse: bool) -> torch.Tensor:
    x = x.flip(axis) if reverse else x
    total = x.cumsum(axis, dtype=x.dtype)
    total = total - x if exclusive else total
    return total.flip(axis) if reverse else total


def one_hot_vectors(index: torch.Tensor, depth: int, values: torch.Tensor, axis: int) -> torch.Tensor:
    """`values` is (off, on); an index out of range gives a vector that is off everywhere."""
    index = torch.where(index < 0, index + depth, index).unsqueeze(-1)
    hot = index == torch.arange(depth, device=index.device)
    vectors = torch.where(hot, values[1], values[0])
    return vectors.movedim(-1, axis)


def _count(x: torch.Tensor, axes: tuple[int, ...]) -> int:
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    return count
