"""The Fourier transform."""

from __future__ import annotations

import torch

from worker.engine.torch_form.operation import Operation, Value
from worker.engine.torch_form.registry import implements


@implements("DFT")
def fourier_transform(op: Operation) -> Value:
    """The axis became an input, and its default another, in opset 20."""
    axis = int(op.scalar(2, -2)) if op.opset >= 20 else op.attribute("axis", 1)
    length = op.number(1) if op.has(1) else None
    inverse, one_sided = bool(op.attribute("inverse", 0)), bool(op.attribute("onesided", 0))
    return op.call(transformed, op.tensor(0), length, axis, inverse, one_sided)


def transformed(x: torch.Tensor, length: int | None, axis: int, inverse: bool, one_sided: bool) -> torch.Tensor:
    """x (..., 1 or 2): real numbers, or real and imaginary parts. Of what is symmetric, the one-sided half is made, or
    (inverse) taken."""
    axis %= x.ndim
    if x.shape[-1] == 1 and not inverse:
        spectrum: torch.Tensor = (torch.fft.rfft if one_sided else torch.fft.fft)(x[..., 0], length, axis)
        return torch.view_as_real(spectrum)
    numbers = torch.view_as_complex(x.contiguous()) if x.shape[-1] == 2 else x[..., 0]
    if one_sided:
        signal: torch.Tensor = torch.fft.irfft(numbers, length, axis)
        return signal.unsqueeze(-1)
    spectrum = (torch.fft.ifft if inverse else torch.fft.fft)(numbers, length, axis)
    return torch.view_as_real(spectrum)
