"""Networks that take one image at a time, whatever their operators could: a shape that was written out at export."""

from __future__ import annotations

import torch
from torch import nn

from worker.engine.torch_form.failures import TORCH_ERRORS

_TOLERANCE = 1e-3


class OneByOne(nn.Module):
    """Runs a network on each image of a batch and lays its outputs in a row.

    Norms keep their running averages in training, too: those of a single image would not do.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.eval()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        each = [self.network(images[row : row + 1]) for row in range(len(images))]
        return tuple(_row(values) for values in zip(*each, strict=True))

    def train(self, mode: bool = True) -> OneByOne:
        self.training = mode
        return self


def _row(values: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return torch.cat(values) if values[0].dim() else torch.stack(values)


@torch.no_grad()
def takes_batches(network: nn.Module, images: torch.Tensor) -> bool:
    """Whether a network in evaluation mode makes of two images together what it makes of each of them."""
    # `forward`, as a call of a graph module prints what went wrong.
    singles = [network.forward(images[row : row + 1]) for row in range(len(images))]
    try:
        together = network.forward(images)
    except TORCH_ERRORS:
        return False
    return all(_same(a, values) for a, values in zip(together, zip(*singles, strict=True), strict=True))


def _same(together: torch.Tensor, singles: tuple[torch.Tensor, ...]) -> bool:
    """Lists of what was found in each image may be of any length: they are not compared."""
    if len({single.shape for single in singles}) > 1:
        return True
    row = _row(singles)
    near = _TOLERANCE * float(row.abs().max()) if row.numel() else 0.0
    return together.shape == row.shape and torch.allclose(together.float(), row.float(), _TOLERANCE, near)
