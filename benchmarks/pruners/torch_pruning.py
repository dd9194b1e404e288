"""Torch-Pruning on one model: its high-level pruner, half of the channels of every group by magnitude, and the check
that the pruned model computes what the original does with the removed channels silenced."""

import copy
import sys
from typing import Any

import torch
import torch.nn.functional as F
import torch_pruning as tp

from benchmarks import memory
from benchmarks.pruners.report import Stopwatch, say
from benchmarks.pruners.torch_models import macs, makers_of_outputs, outputs, relative_error
from benchmarks.pruners.warm_up import small_network
from benchmarks.zoo import Entry, build, find

TOLERANCE = 1e-4


def run(entry: Entry) -> dict[str, Any]:
    _prune(*small_network(), [])
    model, images = build(entry)
    original = copy.deepcopy(model)
    whole, classifiers = macs(model, images), makers_of_outputs(model, images)
    names = {module: name for name, module in model.named_modules()}
    interpreter = memory.start_peak()
    with Stopwatch() as pruning:
        groups = _prune(model, images, classifiers)
    result = {
        "seconds": pruning.seconds,
        "cpu_seconds": pruning.cpu_seconds,
        "interpreter_bytes": interpreter,
        "peak_bytes": memory.peak() - interpreter,
        "model_bytes": entry.model_bytes,
    }
    found = outputs(model, images)
    silence(original, removed_channels(original, names, groups))
    error = relative_error(outputs(original, images), found)
    status = "pruned" if error <= TOLERANCE else "wrong"
    return {"status": status, **result, "proof_error": error, "macs": whole, "macs_ratio": macs(model, images) / whole}


def _prune(model: torch.nn.Module, images: torch.Tensor, classifiers: list[torch.nn.Module]) -> list[Any]:
    """Prunes the model in place. Returns the groups of channels that it removed."""
    pruner = tp.pruner.BasePruner(
        model, images, importance=tp.importance.MagnitudeImportance(p=2), pruning_ratio=0.5, ignored_layers=classifiers
    )
    groups = []
    for group in pruner.step(interactive=True):
        group.prune()
        groups.append(group)
    return groups


def removed_channels(
    original: torch.nn.Module, names: dict[torch.nn.Module, str], groups: list[Any]
) -> dict[str, torch.Tensor]:
    """For each layer that sums over channels, and each norm, the indices of its original channels that are left.

    Groups name positions among the channels that earlier groups left.
    """
    left: dict[str, torch.Tensor] = {}
    for group in groups:
        for dependency, positions in group:
            name = names.get(dependency.target.module, "")
            size = _channels(original.get_submodule(name), dependency.handler.__name__)
            if size is None:
                continue
            there = left.setdefault(name, torch.arange(size))
            stays = torch.ones(len(there), dtype=torch.bool)
            stays[[p for p in positions if p < len(there)]] = False  # a wrong index map can point beyond the layer
            left[name] = there[stays]
    return left


def _channels(layer: torch.nn.Module, handler: str) -> int | None:
    """How many channels a handler takes channels from, where the layer sums over them or normalises them."""
    if isinstance(layer, torch.nn.LayerNorm | torch.nn.GroupNorm):
        return layer.weight.shape[0]
    if handler == "prune_in_channels" and isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
        return layer.in_features if isinstance(layer, torch.nn.Linear) else layer.in_channels
    return None


def silence(original: torch.nn.Module, left: dict[str, torch.Tensor]) -> None:
    """Put zeros into the removed channels in front of every layer that sums over them, and let norms run over the
    channels that stay."""
    for name, channels in left.items():
        module = original.get_submodule(name)
        if isinstance(module, torch.nn.LayerNorm | torch.nn.GroupNorm):
            _restrict(module, channels)
        elif isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            _mask_input(module, channels)


def _mask_input(layer: torch.nn.Conv2d | torch.nn.Linear, left: torch.Tensor) -> None:
    shape = (-1,) if isinstance(layer, torch.nn.Linear) else (1, -1, 1, 1)
    mask = torch.zeros(layer.in_features if isinstance(layer, torch.nn.Linear) else layer.in_channels)
    mask[left] = 1
    shaped = mask.reshape(shape)
    layer.register_forward_pre_hook(lambda _, arguments: (arguments[0] * shaped, *arguments[1:]))


def _restrict(norm: torch.nn.LayerNorm | torch.nn.GroupNorm, left: torch.Tensor) -> None:
    """Let a norm run over the channels `left` alone."""

    if isinstance(norm, torch.nn.GroupNorm):
        groups, weight, bias, eps = norm.num_groups, norm.weight[left], norm.bias[left], norm.eps

        def restricted(x: torch.Tensor) -> torch.Tensor:
            kept = F.group_norm(x[:, left], groups, weight, bias, eps)
            return torch.zeros_like(x).index_copy(1, left, kept)
    else:
        weight, bias, eps = norm.weight[left], None if norm.bias is None else norm.bias[left], norm.eps
        width = norm.weight.shape[0]

        def restricted(x: torch.Tensor) -> torch.Tensor:
            axis = x.dim() - 1 if x.shape[-1] == width else 1  # timm has norms over the axis 1 of images
            kept = F.layer_norm(x.index_select(axis, left).movedim(axis, -1), (len(left),), weight, bias, eps)
            return torch.zeros_like(x).index_copy(axis, left, kept.movedim(-1, axis))

    norm.__dict__["forward"] = restricted


if __name__ == "__main__":
    say(run(find(sys.argv[1])))
