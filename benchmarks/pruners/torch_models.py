"""What the two pruners of Python models have in common: the classifier they must leave, MACs, and outputs."""

import copy
from collections.abc import Mapping

import torch
from torch.utils.flop_counter import FlopCounterMode


def macs(model: torch.nn.Module, images: torch.Tensor) -> int:
    """Multiply-accumulates of convolutions, linear layers and attention for one sample."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        copy.deepcopy(model)(images)
    return counter.get_total_flops() // 2 // len(images)


def outputs(model: torch.nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """The model's outputs as a list, whatever they come in."""
    with torch.no_grad():
        found = model(images)
    if isinstance(found, Mapping):
        return list(found.values())
    return list(found) if isinstance(found, tuple | list) else [found]


def makers_of_outputs(model: torch.nn.Module, images: torch.Tensor) -> list[torch.nn.Module]:
    """Layers as wide as the outputs that they make: the classifier. They keep their channels."""
    widths = {tensor.shape[1] for tensor in outputs(model, images)}
    return [
        m
        for m in model.modules()
        if (isinstance(m, torch.nn.Linear) and m.out_features in widths)
        or (isinstance(m, torch.nn.Conv2d) and m.out_channels in widths)
    ]


def relative_error(expected: list[torch.Tensor], found: list[torch.Tensor]) -> float:
    """Largest difference over largest expected magnitude; infinite where shapes differ."""
    if [e.shape for e in expected] != [f.shape for f in found]:
        return float("inf")
    pairs = zip(expected, found, strict=True)
    return max(float((e - f).abs().max() / e.abs().max().clamp_min(1e-30)) for e, f in pairs)
