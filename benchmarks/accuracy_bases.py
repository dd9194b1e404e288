"""The bases of the accuracy benchmark: CIFAR-10 networks, trained once and kept in the cache, and their ONNX files.

`resnet56` has the shared weights; `resnet20` the public weights, finetuned for 5 epochs on the JPEG images; `vgg16_bn`
and `resnet34` are trained from nothing. The first two come in two forms that compute the same: `option_a` with
parameter-free shortcuts, `option_b` with each of them as a 1x1 convolution of stride 2, the identity between zeros.
Torch-Pruning, which cannot follow option A, works on option B.

    python -m benchmarks.accuracy_bases resnet20 vgg16_bn     # trains what the cache lacks, an epoch at a time
"""

import argparse
import io
import math
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from benchmarks.cifar_onnx import SIZE
from benchmarks.cifar_resnet import BasicBlock, OptionA, load_cifar_resnet
from benchmarks.machine import REPOSITORY
from benchmarks.zoo import cache
from worker.engine.recovery.arithmetic import BFLOAT16, suited

SHARED = REPOSITORY.parent / "shared"
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
FORMS = ("option_a", "option_b")


class CifarVgg16(nn.Module):
    """VGG16 with BatchNormalization in its CIFAR form: 13 convolutions and one linear layer. (N, 3, 32, 32)."""

    WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for stage in self.WIDTHS:
            for width in stage:
                layers += [nn.Conv2d(inputs, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                inputs = width
            layers.append(nn.MaxPool2d(2))
        layers[-1] = nn.AdaptiveMaxPool2d(1)  # the same at 32x32, and defined at 16x16
        self.features = nn.Sequential(*layers)
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.linear(self.features(x).flatten(1))
        return scores


def cifar_resnet34() -> nn.Module:
    """torchvision's ResNet34 in its CIFAR form: a 3x3 stem of stride 1 in place of the 7x7 one and the pooling."""
    network: nn.Module = torchvision.models.resnet34(num_classes=10)
    network.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    network.maxpool = nn.Identity()
    return network


UNTRAINED: dict[str, Callable[[], nn.Module]] = {"vgg16_bn": CifarVgg16, "resnet34": cifar_resnet34}
"""Networks that are trained from nothing."""
ON_WHOLE_IMAGES = {"vgg16_bn": (5, 0.05), "resnet34": (1, 0.02)}
"""Epochs and learning rate of their training after ten epochs, nine of them at half of the side."""


# ---------------------------------------------------------------------------------------------- networks


def load(name: str, form: str) -> nn.Module:
    """A base in one of its FORMS, in evaluation mode; trained now if the cache lacks it."""
    model = _network(name)
    if form == "option_b":
        model = with_convolution_shortcuts(model)
    return model.eval()


def _network(name: str) -> nn.Module:
    if name == "resnet56":
        return load_cifar_resnet(SHARED / "models" / "resnet56_cifar10_jpeg.safetensors")
    weights = _trained(name)
    if name == "resnet20":
        return load_cifar_resnet(weights)
    model = UNTRAINED[name]()
    model.load_state_dict(load_file(weights))
    return model


def with_convolution_shortcuts(model: nn.Module) -> nn.Module:
    """The network with every option A shortcut as a convolution that computes exactly the same."""
    for module in model.modules():
        if isinstance(module, BasicBlock) and isinstance(module.shortcut, OptionA):
            module.shortcut = _shortcut(module.conv1.in_channels, module.shortcut.side)
    return model


def _shortcut(inputs: int, side: int) -> nn.Conv2d:
    outputs = inputs + 2 * side
    convolution = nn.Conv2d(inputs, outputs, 1, 2, 0, bias=False)
    weight = torch.zeros(outputs, inputs, 1, 1)
    weight[side : side + inputs, :, 0, 0] = torch.eye(inputs)
    convolution.weight = nn.Parameter(weight)
    return convolution


# ---------------------------------------------------------------------------------------------- data


def cifar10() -> Path:
    """CIFAR-10 as one npz in the cache: the 50,000 training images as x, the 5,000 of `cifar10_val` as x_test."""
    path = folder() / "cifar10.npz"
    if not path.exists():
        x, y = _read(SHARED / "data" / "cifar10_train.tar.xz")
        x_test, y_test = _read(SHARED / "data" / "cifar10_val.tar.xz")
        unfinished = path.with_suffix(".tmp.npz")
        np.savez(unfinished, x=x, y=y, x_test=x_test, y_test=y_test)
        unfinished.replace(path)
    return path


def folder() -> Path:
    path = cache() / "accuracy"
    path.mkdir(parents=True, exist_ok=True)
    return path


def _read(archive: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 32, 32, 3) and their classes, in the order of the files' names."""
    found = []
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile():
                content = tar.extractfile(member)
                assert content is not None
                image = np.asarray(Image.open(io.BytesIO(content.read())).convert("RGB"))
                found.append((member.name, Path(member.name).parent.name, image))
    found.sort(key=lambda item: item[0])
    classes = sorted({label for _, label, _ in found})
    numbers = np.array([classes.index(label) for _, label, _ in found], np.int64)
    return np.stack([image for _, _, image in found]), numbers


# ---------------------------------------------------------------------------------------------- training


def _trained(name: str) -> Path:
    """The weights of a base that is trained here. An interrupted training goes on after its last whole epoch."""
    target = folder() / f"{name}.safetensors"
    if not target.exists():
        if name == "resnet20":
            model: nn.Module = load_cifar_resnet(SHARED / "models" / "resnet20_cifar10_png.safetensors")
            _train(model, target, epochs=5, rate=0.02)
        elif name in UNTRAINED:
            torch.manual_seed(0)
            model, rough = UNTRAINED[name](), target.with_stem(f"{name}_rough")
            if not rough.exists():
                _train(model, rough, epochs=10, rate=0.05, halved=9)
            model.load_state_dict(load_file(rough))
            # The rate is next to nothing in the one epoch so far that saw whole images.
            epochs, rate = ON_WHOLE_IMAGES[name]
            _train(model, target, epochs=epochs, rate=rate)
        else:
            raise ValueError(f"there is no base {name!r}")
    return target


def precision() -> Literal["auto", "bfloat16"]:
    """Of all finetuning, the same for both sides: bfloat16 where the device has instructions for it, else float32 in
    the memory format that a trial chooses."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return "bfloat16" if BFLOAT16 in suited(device) else "auto"


def _train(model: nn.Module, target: Path, epochs: int, rate: float, halved: int = 0) -> None:
    """SGD with Nesterov momentum, one cycle of the rate, crops and flips; channels-last, on the CPU, in bfloat16 where
    it has instructions for it. The first `halved` epochs see images of half the side, at a quarter of the work."""
    device = torch.device("cpu")
    arithmetic = suited(device)[-1]
    with np.load(cifar10()) as data:
        images, labels = torch.from_numpy(data["x"]).permute(0, 3, 1, 2), torch.from_numpy(data["y"])
    batch, steps = 128, len(labels) // 128
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _one_cycle(epochs * steps))
    checkpoint, first = target.with_suffix(".checkpoint"), 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        first = state["epoch"]
    for epoch in range(first, epochs):
        start, total = time.monotonic(), 0.0
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(epoch))
        rng = np.random.default_rng(epoch)
        model.train()
        for step in range(steps):
            rows = order[step * batch : (step + 1) * batch]
            inputs = _augmented(images[rows], rng)
            if epoch < halved:
                inputs = functional.avg_pool2d(inputs, 2)
            inputs = inputs.contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad(set_to_none=True)
            with arithmetic.context(device):
                loss = functional.cross_entropy(model(inputs).float(), labels[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.item()
        seconds = time.monotonic() - start
        print(f"{target.stem} epoch {epoch + 1}/{epochs}: loss {total / steps:.3f}, {seconds:.0f} s", flush=True)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        torch.save({**state, "epoch": epoch + 1}, checkpoint)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, target)
    checkpoint.unlink()


def _one_cycle(steps: int) -> Callable[[int], float]:
    """Linear warm-up over a tenth of the steps, then a cosine down to zero."""
    warm = max(steps // 10, 1)

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))

    return factor


def _augmented(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Random crops after padding by 4 and random flips of a batch (N, 3, 32, 32) uint8; normalised float32."""
    padded = functional.pad(images, (4, 4, 4, 4))
    crops = [
        padded[i, :, top : top + SIZE, left : left + SIZE].flip(-1 if flip else ())
        for i, (top, left, flip) in enumerate(rng.integers(0, (9, 9, 2), (len(images), 3)).tolist())
    ]
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    return (torch.stack(crops).float() / 255 - mean) / std


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=("resnet20", "resnet56", *UNTRAINED))
    for name in parser.parse_args().names:
        load(name, "option_b")
        print(f"{name} is in {folder()}")
