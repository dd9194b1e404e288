"""The ONNX file of a torch network for CIFAR images."""

import io
from pathlib import Path

import torch
from torch import nn

SIZE = 32


def export(model: nn.Module, target: Path | io.BytesIO) -> None:
    """Write it as evaluated, with BatchNormalization as nodes, the state dict's names and a dynamic batch."""
    torch.onnx.export(
        model.eval(),
        (torch.zeros(2, 3, SIZE, SIZE),),
        target,  # type: ignore[arg-type]
        dynamo=False,
        do_constant_folding=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        opset_version=17,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
    )
