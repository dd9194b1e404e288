"""In which arithmetic a network is trained: float32, or bfloat16 mixed precision, and in which order tensors lie.

What is faster depends on the processor and the network, so a short trial decides. bfloat16 gains much where the
processor has instructions for it; others are not asked to try it: emulated it takes many times as long as float32.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from statistics import median
from typing import Literal

import torch

MIN_STEPS = 300
"""A training of fewer steps is in float32: a trial would not pay."""
MIN_GAIN = 1.25
"""How much faster than float32 another arithmetic has to be: the noise of a busy machine decides nothing."""
_TRIES = 3


@dataclass(frozen=True)
class Arithmetic:
    """bfloat16 computes in mixed precision, with weights in float32. Channels-last is a memory format of images."""

    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = False

    def images(self, batch: torch.Tensor) -> torch.Tensor:
        """The batch in the memory format."""
        last = self.channels_last and batch.dim() == 4
        return batch.contiguous(memory_format=torch.channels_last) if last else batch

    def prepare(self, network: torch.nn.Module) -> None:
        """Put the network's kernels of four axes into the memory format, in place; their values stay. Others, such as
        the anchors of a detector or the kernels of volumes, have no such format."""
        wanted = torch.channels_last if self.channels_last else torch.contiguous_format
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.dim() == 4:
                tensor.data = tensor.data.contiguous(memory_format=wanted)

    def context(self, device: torch.device) -> AbstractContextManager[object]:
        """In which the forward pass runs."""
        return nullcontext() if self.precision == "float32" else torch.autocast(device.type, torch.bfloat16)


FLOAT32 = Arithmetic()
BFLOAT16 = Arithmetic("bfloat16", channels_last=True)
CANDIDATES = (FLOAT32, Arithmetic("float32", channels_last=True), BFLOAT16)


def suited(device: torch.device) -> tuple[Arithmetic, ...]:
    """The candidates that the device does not have to emulate at many times the cost."""
    if device.type != "cpu":
        return CANDIDATES
    # oneDNN, which computes the convolutions, answers for the processor that it runs on.
    mkldnn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    supported = mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return CANDIDATES if supported else tuple(each for each in CANDIDATES if each.precision == "float32")


def fastest(
    network: torch.nn.Module,
    step: Callable[[Arithmetic], None],
    device: torch.device,
    candidates: Sequence[Arithmetic] = CANDIDATES,
    clock: Callable[[], float] = time.perf_counter,
) -> Arithmetic:
    """The candidate whose `step`, a forward and a backward pass, takes least time on the `clock`, in seconds. One that
    fails is out. Buffers that a step changes (running averages) are put back."""
    kept = {name: buffer.clone() for name, buffer in network.named_buffers()}
    seconds: dict[Arithmetic, float] = {}
    for candidate in candidates:
        try:
            candidate.prepare(network)
            seconds[candidate] = _time(step, candidate, device, clock)
        except RuntimeError:  # an op without a kernel for it, or a view that its memory format does not allow
            continue
    FLOAT32.prepare(network)
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            buffer.copy_(kept[name])
    network.zero_grad(set_to_none=True)
    best = min(seconds, key=lambda candidate: seconds[candidate], default=FLOAT32)
    return best if seconds.get(FLOAT32, 0.0) > MIN_GAIN * seconds.get(best, 0.0) else FLOAT32


def _time(
    step: Callable[[Arithmetic], None], candidate: Arithmetic, device: torch.device, clock: Callable[[], float]
) -> float:
    """Median seconds, after one step that warms up."""
    taken = []
    for _ in range(_TRIES + 1):
        start = clock()
        step(candidate)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(clock() - start)
    return median(taken[1:])
