"""Normalisations. BatchNormalization uses batch statistics and updates its running averages in training mode."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from worker.engine.torch_form.operation import Operation, Value
from worker.engine.torch_form.registry import Result, implements

ONNX_MOMENTUM = 0.9


@implements("BatchNormalization")
def batch_normalization(op: Operation) -> Result:
    """ONNX momentum weighs the old average, torch momentum the new value. 1.0 (an average that never moves, which
    some exporters write for inference) is taken as the ONNX default. Before opset 14 further outputs stand for training
    mode, to ONNX Runtime, too."""
    if not op.attribute("spatial", 1):
        raise op.unsupported("it has statistics for each position")
    x, scale, bias, epsilon = op.tensor(0), op.tensor(1), op.tensor(2), op.attribute("epsilon", 1e-5)
    if op.attribute("training_mode", 0) or (op.opset < 14 and any(op.proto.output[1:])):
        out = op.call(F.batch_norm, x, None, None, scale, bias, True, 0.0, epsilon)
        averages = op.call(updated_averages, x, op.tensor(3), op.tensor(4), op.attribute("momentum", ONNX_MOMENTUM))
        results = (out, *op.unpack(averages, 2))
        if op.opset < 14:
            results += op.unpack(op.call(saved_statistics, x, epsilon), 2)
        return results[: len(op.proto.output)]
    mean, variance = op.running_average(3), op.running_average(4)
    if mean is None or variance is None:
        return op.call(F.batch_norm, x, op.tensor(3), op.tensor(4), scale, bias, False, 0.0, epsilon)
    momentum = op.attribute("momentum", ONNX_MOMENTUM)
    momentum = ONNX_MOMENTUM if momentum >= 1 else momentum
    return op.call(F.batch_norm, x, mean, variance, scale, bias, op.training, 1 - momentum, epsilon)


@implements("InstanceNormalization")
def instance_normalization(op: Operation) -> Value:
    epsilon = op.attribute("epsilon", 1e-5)
    return op.call(F.instance_norm, op.tensor(0), None, None, op.tensor(1), op.tensor(2), True, 0.0, epsilon)


@implements("LayerNormalization")
def layer_normalization(op: Operation) -> Value:
    if any(op.proto.output[1:]):
        raise op.unsupported("its mean or standard deviation is used")
    x, scale, bias = op.tensor(0), op.tensor(1), op.optional(2)
    return op.call(layer_norm, x, scale, bias, op.attribute("axis", -1), op.attribute("epsilon", 1e-5))


@implements("GroupNormalization")
def group_normalization(op: Operation) -> Value:
    """Scale and bias are per group up to opset 20, per channel from 21 on."""
    groups, epsilon = op.attribute("num_groups"), op.attribute("epsilon", 1e-5)
    x, scale, bias = op.tensor(0), op.tensor(1), op.tensor(2)
    if op.opset < 21:
        scale, bias = (op.call(per_channel, x, v, groups) for v in (scale, bias))
    return op.call(F.group_norm, x, groups, scale, bias, epsilon)


@implements("RMSNormalization", "SimplifiedLayerNormalization")
def rms_normalization(op: Operation) -> Value:
    return op.call(rms_norm, op.tensor(0), op.tensor(1), op.attribute("axis", -1), op.attribute("epsilon", 1e-5))


@implements("MeanVarianceNormalization")
def mean_variance_normalization(op: Operation) -> Value:
    return op.call(standardise, op.tensor(0), op.attribute("axes", (0, 2, 3)))


@implements("LpNormalization")
def lp_normalization(op: Operation) -> Value:
    return op.call(lp_normalise, op.tensor(0), float(op.attribute("p", 2)), op.attribute("axis", -1))


@implements("LRN")
def local_response_normalization(op: Operation) -> Value:
    options = (op.attribute("alpha", 1e-4), op.attribute("beta", 0.75), op.attribute("bias", 1.0))
    return op.call(local_response, op.tensor(0), op.attribute("size"), *options)


@implements("Dropout")
def dropout(op: Operation) -> Result:
    """Active in training, with the graph's ratio."""
    ratio = op.scalar(1, 0.5) if op.opset >= 12 else op.attribute("ratio", 0.5)
    x = op.tensor(0)
    out = x if isinstance(x, torch.Tensor) else op.call(F.dropout, x, float(ratio), op.training)
    if len(op.proto.output) > 1 and op.proto.output[1]:
        return out, op.call(torch.ones_like, x, dtype=torch.bool)
    return out


def updated_averages(
    x: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor, momentum: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The running averages as ONNX moves them, with the biased variance."""
    planes = x.detach().transpose(0, 1).flatten(1)
    new_variance, new_mean = torch.var_mean(planes, dim=1, correction=0)
    return torch.lerp(new_mean, mean, momentum), torch.lerp(new_variance, variance, momentum)


def saved_statistics(x: torch.Tensor, epsilon: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The batch's own, as ONNX Runtime gives them: mean and inverse deviation."""
    variance, mean = torch.var_mean(x.detach().transpose(0, 1).flatten(1), dim=1, correction=0)
    return mean, torch.rsqrt(variance + epsilon)


def layer_norm(
    x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None, axis: int, epsilon: float
) -> torch.Tensor:
    """Over all dimensions from `axis` on; scale and bias may broadcast."""
    shape = x.shape[axis:]
    if scale.shape == shape and (bias is None or bias.shape == shape):
        return F.layer_norm(x, shape, scale, bias, epsilon)
    out = F.layer_norm(x, shape, eps=epsilon) * scale
    return out if bias is None else out + bias


def rms_norm(x: torch.Tensor, scale: torch.Tensor, axis: int, epsilon: float) -> torch.Tensor:
    return F.rms_norm(x, x.shape[axis:], eps=epsilon) * scale


def per_channel(x: torch.Tensor, values: torch.Tensor, groups: int) -> torch.Tensor:
    """One value per group, repeated for the group's channels."""
    return values.repeat_interleave(x.shape[1] // groups)


def standardise(x: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)


def lp_normalise(x: torch.Tensor, p: float, axis: int) -> torch.Tensor:
    """Zero vectors stay zero."""
    norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(x), x / norm.clamp_min(torch.finfo(x.dtype).tiny))


def local_response(x: torch.Tensor, size: int, alpha: float, beta: float, bias: float) -> torch.Tensor:
    """Each channel by the mean square of `size` channels around it."""
    squares = x.square().flatten(2).unsqueeze(1)  # (N, 1, C, spatial)
    padded = F.pad(squares, (0, 0, (size - 1) // 2, size // 2))
    mean = F.avg_pool2d(padded, (size, 1), stride=1).squeeze(1).reshape(x.shape)
    return x / (bias + alpha * mean).pow(beta)
