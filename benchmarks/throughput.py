"""Training throughput of the torch form against the nn.Module that it was exported from (issue 3).

    python -m benchmarks.throughput

One thread, one batch of images, SGD with momentum. The two take turns, step by step, in one process, so that whatever
else the machine does strikes both; times are medians over all steps, spreads are quartiles.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file
from torch import nn

from benchmarks import machine, results
from worker.engine.architectures import export_architecture
from worker.engine.torch_form import build

RESULTS = results.FOLDER / "throughput.json"
GOAL = 0.95
BATCH, SIZE, CLASSES, STEPS, WARMUP = 16, 96, 10, 40, 3
MODELS = {"resnet18": "ResNet-18", "mobilenet_v3_large": "MobileNetV3"}

Step = Callable[[], float]


def main() -> None:
    torch.set_num_threads(1)
    rows = {name: measure(name) for name in MODELS}
    claims = [
        results.Claim(
            f"training throughput of the torch form, relative to the nn.Module's: {title}",
            issue=3,
            value=f"{rows[name]['relative_throughput']:.3f}",
            goal=f">= {GOAL}",
            holds=rows[name]["relative_throughput"] >= GOAL,
        )
        for name, title in MODELS.items()
    ]
    described = machine.describe("torch", "torchvision", "onnx")
    results.write(RESULTS, {"machine": described, "batch": BATCH, "image_size": SIZE, "rows": rows}, claims)
    for claim in claims:
        print(f"{claim.name}: {claim.value} (goal {claim.goal})")


def measure(name: str) -> dict[str, Any]:
    """Median seconds per training step of the module and of its torch form, and how much the form reaches."""
    torch.manual_seed(0)
    original = torchvision.models.get_model(name, weights=None, num_classes=CLASSES)
    with torch.no_grad():
        for parameter in original.parameters():
            parameter.add_(0.001 * torch.randn_like(parameter))  # the exporter leaves out biases that are all zero
    steps = {"original": step_of(original), "torch_form": step_of(torch_form(original, name))}
    for step in steps.values():
        for _ in range(WARMUP):
            step()
    seconds: dict[str, list[float]] = {which: [] for which in steps}
    for turn in range(STEPS):
        order = list(steps) if turn % 2 else list(steps)[::-1]
        for which in order:
            seconds[which].append(steps[which]())
    pairs = [a / b for a, b in zip(seconds["original"], seconds["torch_form"], strict=True)]
    return {
        "steps": STEPS,
        "relative_throughput": statistics.median(pairs),
        "relative_throughput_quartiles": statistics.quantiles(pairs)[::2],
        **{f"{which}_seconds": statistics.median(times) for which, times in seconds.items()},
        **{f"{which}_seconds_quartiles": statistics.quantiles(times)[::2] for which, times in seconds.items()},
    }


def torch_form(original: nn.Module, name: str) -> nn.Module:
    """The module after its way through ONNX, as the service takes it: every BatchNormalization is still there, so that
    both do the same work."""
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.safetensors"
        save_file(original.state_dict(), weights)
        module = build(export_architecture(name, weights, CLASSES, (3, SIZE, SIZE))).module
    assert _floats(module.parameters()) == _floats(original.parameters()), f"{name} lost weights on its way"
    assert _floats(module.buffers()) >= _floats(original.buffers()), f"{name} lost running averages on its way"
    return module


def _floats(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors if tensor.is_floating_point())


def step_of(module: nn.Module) -> Step:
    """One step of training on the same images each time; returns its seconds."""
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(BATCH, 3, SIZE, SIZE, generator=generator)
    labels = torch.randint(CLASSES, (BATCH,), generator=generator)

    def step() -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        scores = module(images)
        loss = F.cross_entropy(scores[0] if isinstance(scores, tuple) else scores, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return time.perf_counter() - start

    return step


if __name__ == "__main__":
    main()
