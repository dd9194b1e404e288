"""Activation functions."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from worker.engine.torch_form.operation import Operation, Value
from worker.engine.torch_form.registry import implements

_PLAIN: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "Relu": F.relu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "HardSwish": F.hardswish,
    "Mish": F.mish,
}


@implements(*_PLAIN)
def plain(op: Operation) -> Value:
    return op.call(_PLAIN[op.op], op.tensor(0))


@implements("LeakyRelu")
def leaky_relu(op: Operation) -> Value:
    return op.call(F.leaky_relu, op.tensor(0), op.attribute("alpha", 0.01))


@implements("PRelu")
def prelu(op: Operation) -> Value:
    """The slope broadcasts like any operand, so this is no `F.prelu`."""
    return op.call(parametric_relu, op.tensor(0), op.tensor(1))


@implements("Elu")
def elu(op: Operation) -> Value:
    return op.call(F.elu, op.tensor(0), op.attribute("alpha", 1.0))


@implements("Celu")
def celu(op: Operation) -> Value:
    return op.call(F.celu, op.tensor(0), op.attribute("alpha", 1.0))


@implements("Selu")
def selu(op: Operation) -> Value:
    alpha, gamma = op.attribute("alpha", 1.6732632423543772), op.attribute("gamma", 1.0507009873554805)
    return op.call(scaled_elu, op.tensor(0), alpha, gamma)


@implements("ThresholdedRelu")
def thresholded_relu(op: Operation) -> Value:
    return op.call(F.threshold, op.tensor(0), op.attribute("alpha", 1.0), 0.0)


@implements("HardSigmoid")
def hard_sigmoid(op: Operation) -> Value:
    alpha, beta = op.attribute("alpha", 0.2), op.attribute("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-5) and beta == 0.5:
        return op.call(F.hardsigmoid, op.tensor(0))
    return op.call(linear_clamped, op.tensor(0), alpha, beta)


@implements("Gelu")
def gelu(op: Operation) -> Value:
    return op.call(F.gelu, op.tensor(0), approximate=op.attribute("approximate", "none"))


@implements("Swish")
def swish(op: Operation) -> Value:
    return op.call(scaled_swish, op.tensor(0), op.attribute("alpha", 1.0))


@implements("Shrink")
def shrink(op: Operation) -> Value:
    return op.call(shrunk, op.tensor(0), op.attribute("lambd", 0.5), op.attribute("bias", 0.0))


@implements("Softmax", "LogSoftmax")
def softmax(op: Operation) -> Value:
    """Over one axis; up to opset 12 over all dimensions from `axis` on."""
    function = F.softmax if op.op == "Softmax" else F.log_softmax
    axis = op.attribute("axis", -1 if op.opset >= 13 else 1)
    x, rank = op.tensor(0), op.rank(0)
    if op.opset >= 13 or axis == -1 or (rank is not None and axis == rank - 1):
        return op.call(function, x, dim=axis)
    return op.call(softmax_from, x, axis, op.op == "LogSoftmax")


@implements("Hardmax")
def hardmax(op: Operation) -> Value:
    if op.opset >= 13:
        return op.call(one_at_maximum, op.tensor(0), op.attribute("axis", -1))
    return op.call(one_at_maximum_from, op.tensor(0), op.attribute("axis", 1))


def parametric_relu(x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    return F.relu(x) - slope * F.relu(-x)


def scaled_elu(x: torch.Tensor, alpha: float, gamma: float) -> torch.Tensor:
    return gamma * F.elu(x, alpha)


def linear_clamped(x: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    return (alpha * x + beta).clamp(0, 1)


def scaled_swish(x: torch.Tensor, alpha: float) -> torch.Tensor:
    return x * torch.sigmoid(alpha * x)


def shrunk(x: torch.Tensor, threshold: float, bias: float) -> torch.Tensor:
    return torch.where(x < -threshold, x + bias, torch.where(x > threshold, x - bias, torch.zeros_like(x)))


def softmax_from(x: torch.Tensor, axis: int, log: bool) -> torch.Tensor:
    flat = x.flatten(axis)
    return (F.log_softmax(flat, -1) if log else F.softmax(flat, -1)).reshape(x.shape)


def one_at_maximum_from(x: torch.Tensor, axis: int) -> torch.Tensor:
    return one_at_maximum(x.flatten(axis), -1).reshape(x.shape)


def one_at_maximum(x: torch.Tensor, axis: int) -> torch.Tensor:
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1.0)
