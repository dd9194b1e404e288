"""The CIFAR ResNets of He et al. (2016, section 4.2) with option A shortcuts, and their export to ONNX.

`python -m benchmarks.cifar_resnet WEIGHTS.safetensors OUT.onnx` writes the ONNX file of a ResNet whose depth is read
off the weights. BatchNormalization stays a node of its own, initializers carry the state-dict names, and the batch is
dynamic.
"""

import argparse
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.cifar_onnx import export


class OptionA(nn.Module):
    """The parameter-free shortcut: every second pixel, new channels filled with zeros on both sides."""

    def __init__(self, new_channels: int) -> None:
        super().__init__()
        self.side = new_channels // 2

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, 2 C, H / 2, W / 2)
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.side, self.side))


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = OptionA(outputs - inputs) if stride != 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """Depth 6 n + 2: three stages of n blocks with 16, 32 and 64 channels. (N, 3, 32, 32) -> (N, classes)."""

    def __init__(self, blocks_per_stage: int, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks_per_stage, 1)
        self.layer2 = self._stage(16, 32, blocks_per_stage, 2)
        self.layer3 = self._stage(32, 64, blocks_per_stage, 2)
        self.linear = nn.Linear(64, classes)

    @staticmethod
    def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
        first = BasicBlock(inputs, outputs, stride)
        return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        scores: Tensor = self.linear(x.mean(dim=(2, 3)))
        return scores


def load_cifar_resnet(weights: Path) -> CifarResNet:
    """The ResNet of a safetensors file, in eval mode."""
    state = load_file(weights)
    blocks = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("layer1."))
    model = CifarResNet(blocks, classes=state["linear.weight"].shape[0])
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or any(not name.endswith("num_batches_tracked") for name in missing):
        raise ValueError(f"weights do not fit: missing {missing}, unexpected {unexpected}")
    return model.eval()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    export(load_cifar_resnet(arguments.weights), arguments.target)
