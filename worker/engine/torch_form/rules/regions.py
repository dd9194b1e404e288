"""Ops on regions and deformed grids, which torchvision implements.

It is imported where a graph has such an op: it loads torch's compiler, which takes longer than most small jobs.
"""

from __future__ import annotations

import torch

from worker.engine.torch_form.operation import Operation, Value
from worker.engine.torch_form.registry import implements


@implements("RoiAlign")
def align_regions(op: Operation) -> Value:
    """Average pooling over regions; half_pixel coordinates came (as the default) with opset 16."""
    from torchvision.ops import roi_align

    if op.attribute("mode", "avg") != "avg":
        raise op.unsupported("its mode is not avg")
    default = "half_pixel" if op.opset >= 16 else "output_half_pixel"
    aligned = op.attribute("coordinate_transformation_mode", default) == "half_pixel"
    size = op.attribute("output_height", 1), op.attribute("output_width", 1)
    samples = op.attribute("sampling_ratio", 0) or -1  # torchvision writes -1 for as many as a region has pixels
    boxes = op.call(with_batch_index, op.tensor(1), op.tensor(2))
    return op.call(roi_align, op.tensor(0), boxes, size, op.attribute("spatial_scale", 1.0), samples, aligned)


@implements("MaxRoiPool")
def pool_regions(op: Operation) -> Value:
    from torchvision.ops import roi_pool

    return op.call(
        roi_pool, op.tensor(0), op.tensor(1), op.attribute("pooled_shape"), op.attribute("spatial_scale", 1.0)
    )


@implements("DeformConv")
def deform_conv(op: Operation) -> Value:
    """The kernel's taps move by the offsets (and weigh by the mask) that other layers compute."""
    from torchvision.ops import deform_conv2d

    dims = len(op.attribute("strides", (1, 1)))
    pads = op.attribute("pads", (0,) * 2 * dims)
    if dims != 2 or pads[:2] != pads[2:]:
        raise op.unsupported("other than two spatial dimensions, or asymmetric pads")
    strides, dilations = op.attribute("strides", (1, 1)), op.attribute("dilations", (1, 1))
    x, weight, offset, bias, mask = op.tensor(0), op.tensor(1), op.tensor(2), op.optional(3), op.optional(4)
    return op.call(deform_conv2d, x, offset, weight, bias, strides, pads[:2], dilations, mask)


def with_batch_index(regions: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    """(R, 4) and (R,) -> (R, 5), the index of the image first."""
    return torch.cat([batch.to(regions.dtype).unsqueeze(1), regions], 1)
