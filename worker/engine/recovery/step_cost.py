"""What one training step of a model costs: seconds, and the bytes that its backward pass needs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import torch

from worker.engine.graph import sample_inputs
from worker.engine.torch_form import build
from worker.engine.torch_form.failures import as_engine_error

_IMAGES = 2
"""As few as batch statistics can be taken of: what is kept of an image does not depend on how many there are."""
_GPU_IMAGES = 32


@dataclass(frozen=True)
class StepCost:
    """Per image: seconds of a forward pass and of a whole training step, bytes kept for the backward pass."""

    device: str
    images: int
    forward_s: float
    step_s: float
    saved_bytes: int
    weights_bytes: int


def measure_step(model: onnx.ModelProto, device: str = "cpu", seed: int = 0) -> StepCost:
    """One step on random inputs, after another one that is not counted. Raises EngineError where the model has no
    trainable torch form."""
    form = build(model)
    module = form.module.to(device)
    inputs = _inputs(model, seed, device)
    images = len(inputs[0]) if inputs[0].dim() else 1
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1e-9, momentum=0.9)
    held = {p.untyped_storage().data_ptr() for p in parameters}
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in held:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            outputs = module(*inputs)
            loss = torch.stack([output.float().mean() for output in outputs if output.requires_grad]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    hint = "Export the model with a dynamic batch axis, or prune it without finetuning."
    with as_engine_error("not_trainable", "A training step of the model fails in torch", hint):
        module.train()
        step()
        saved.clear()
        step_s = _seconds(step, device)
        module.eval()
        with torch.no_grad():
            forward_s = _seconds(lambda: module(*inputs), device)
    weights = sum(p.nbytes for p in parameters)
    return StepCost(device, images, forward_s / images, step_s / images, sum(saved.values()) // images, weights)


def _inputs(model: onnx.ModelProto, seed: int, device: str) -> list[torch.Tensor]:
    arrays = sample_inputs(model, seed, _IMAGES if device == "cpu" else _GPU_IMAGES)
    return [torch.from_numpy(np.ascontiguousarray(value)).to(device) for value in arrays.values()]


def _seconds(work: Callable[[], object], device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start
