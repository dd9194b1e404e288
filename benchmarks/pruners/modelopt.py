"""NVIDIA ModelOpt on one model: its FastNAS search space, with every width at its largest choice up to half."""

import sys
from typing import Any

import modelopt.torch.nas as mtn
import torch
from modelopt.torch.nas.utils import sample, sort_parameters
from modelopt.torch.prune.fastnas import FastNASModeDescriptor

from benchmarks import memory
from benchmarks.pruners.report import Stopwatch, say
from benchmarks.pruners.torch_models import macs, outputs, relative_error
from benchmarks.pruners.warm_up import small_network
from benchmarks.zoo import Entry, build, find


def run(entry: Entry) -> dict[str, Any]:
    _prune(*small_network())
    model, images = build(entry)
    whole = macs(model, images)
    interpreter = memory.start_peak()
    with Stopwatch() as pruning:
        model, subnet = _prune(model, images)
    result = {
        "seconds": pruning.seconds,
        "cpu_seconds": pruning.cpu_seconds,
        "interpreter_bytes": interpreter,
        "peak_bytes": memory.peak() - interpreter,
        "model_bytes": entry.model_bytes,
    }
    error = relative_error(subnet, outputs(model, images))
    return {"status": "pruned", **result, "error_to_subnet": error, "macs_ratio": macs(model, images) / whole}


def _prune(model: torch.nn.Module, images: torch.Tensor) -> tuple[torch.nn.Module, list[torch.Tensor]]:
    """The exported subnet, and what it computed before it was exported."""
    model = mtn.convert(model, mode=[("fastnas", _search_space())])
    sort_parameters(model)
    sample(model, _half)
    subnet = outputs(model, images)
    return mtn.export(model), subnet


def _search_space() -> dict[str, Any]:
    """FastNAS's own, but with widths in multiples of 8 instead of 32: half of a narrow layer is then among them."""
    config: dict[str, Any] = FastNASModeDescriptor().config_class().model_dump()
    for rules in config.values():
        for divisor in ("channel_divisor", "feature_divisor"):
            if divisor in rules.get("*", {}):
                rules["*"][divisor] = 8
    return config


def _half(choices: list[Any]) -> Any:
    return max((choice for choice in choices if choice <= max(choices) / 2), default=min(choices))


if __name__ == "__main__":
    say(run(find(sys.argv[1])))
