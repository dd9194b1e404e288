"""What the demo prunes: scikit-learn's scanned digits, and a small residual network trained on them. Imports torch."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (48, 96, 192)
EPOCHS = 10
BATCH = 64
LEARNING_RATE = 0.1
TEST_SHARE = 1 / 3
SEED = 0


@dataclass(frozen=True)
class Digits:
    """Images (N, 8, 8, 1) uint8 in 0..255, labels (N,) int64 in 0..9."""

    x: np.ndarray[Any, Any]
    y: np.ndarray[Any, Any]
    x_test: np.ndarray[Any, Any]
    y_test: np.ndarray[Any, Any]

    def save(self, path: Path) -> None:
        np.savez_compressed(path, x=self.x, y=self.y, x_test=self.x_test, y_test=self.y_test)


def digits() -> Digits:
    """1,797 handwritten digits (UCI, Alpaydin and Kaynak 1998), a third of them for testing."""
    images, labels = load_digits(return_X_y=True)
    pixels = np.rint(images.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    x, x_test, y, y_test = train_test_split(
        pixels, labels.astype(np.int64), test_size=TEST_SHARE, random_state=SEED, stratify=labels
    )
    return Digits(x, y, x_test, y_test)


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2015)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResidualNet(nn.Module):
    """(N, 1, 8, 8) in 0..1 to (N, 10) logits."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third = WIDTHS
        self.stem = nn.Sequential(nn.Conv2d(1, first, 3, padding=1, bias=False), nn.BatchNorm2d(first), nn.ReLU())
        self.stages = nn.Sequential(
            Block(first, first, stride=1), Block(first, second, stride=2), Block(second, third, stride=2)
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(third, 10))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.stages(self.stem(x)))
        return logits


def train(
    data: Digits, epochs: int = EPOCHS, on_epoch: Callable[[int, float], None] = lambda epoch, loss: None
) -> ResidualNet:
    """A network trained on the training images; `on_epoch` hears (epoch, mean loss)."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # on layers this small, threads cost more than they bring
    network = ResidualNet().train()
    images, labels = as_input(data.x), torch.from_numpy(data.y)
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = epochs * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for epoch in range(1, epochs + 1):
        total = 0.0
        order = torch.randperm(len(images))
        for start in range(0, len(images), BATCH):
            batch = order[start : start + BATCH]
            loss = functional.cross_entropy(network(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        on_epoch(epoch, total / len(images))
    return network.eval()


def export(network: ResidualNet, path: Path) -> None:
    """ONNX with any batch size. BatchNormalization stays a node of its own, so that it can be finetuned."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the newer exporter folds BatchNormalization away
        torch.onnx.export(
            network,
            (torch.zeros(1, 1, 8, 8),),
            path,
            dynamo=False,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            opset_version=18,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        )


def accuracy(model: Path, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> float:
    """Share of right answers of an ONNX file, in ONNX Runtime and with nothing of Espalier."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": as_input(images).numpy()})
    return float((np.asarray(logits).argmax(axis=1) == labels).mean())


def as_input(images: np.ndarray[Any, Any]) -> Tensor:
    """(N, 8, 8, 1) uint8 to (N, 1, 8, 8) float32 in 0..1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float() / 255
