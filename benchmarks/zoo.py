"""The models of the comparison: their list, how they are built with random weights, and their ONNX exports."""

import csv
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.machine import REPOSITORY
from benchmarks.pruners.report import say

if TYPE_CHECKING:
    import torch

LIST = Path(__file__).with_name("models.csv")
CACHE_VARIABLE = "ESPALIER_BENCHMARK_CACHE"
SHARED = REPOSITORY.parent / "shared" / "models"
_OVER_TWO_GIB = {"regnet_y_128gf", "vit_h_14"}
"""Exports that do not fit in one protobuf: their weights lie in a file beside the graph."""


class Entry(NamedTuple):
    """A model of the list. Libraries: torchvision, torchvision_seg, timm, and shared (ONNX files as they are)."""

    library: str
    model: str

    def __str__(self) -> str:
        return f"{self.library}/{self.model}"

    @property
    def onnx_file(self) -> Path:
        if self.library == "shared":
            return SHARED / f"{self.model}.onnx"
        return cache() / f"{self.library}__{self.model}__dynamo.onnx"

    @property
    def model_bytes(self) -> int:
        """Size of the ONNX file with its external data."""
        return sum(file.stat().st_size for file in self.onnx_file.parent.glob(f"{self.onnx_file.name}*"))


def cache() -> Path:
    """The folder of the exports: several gigabytes, outside the repository."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "espalier-benchmarks")


def entries() -> list[Entry]:
    with LIST.open(newline="") as file:
        return [Entry(row["library"], row["model"]) for row in csv.DictReader(file)]


def find(name: str) -> Entry:
    """The entry called `library/model`."""
    library, _, model = name.partition("/")
    return Entry(library, model)


def build(entry: Entry) -> tuple["torch.nn.Module", "torch.Tensor"]:
    """The model in evaluation mode and an input of two images. Weights are random and the same in every process;
    BatchNormalization has statistics that are not its initial ones, so that dropping them would be seen."""
    import torch

    torch.manual_seed(0)
    if entry.library == "timm":
        import timm

        model = timm.create_model(entry.model, pretrained=False, exportable=True)
        configuration = timm.get_pretrained_cfg(entry.model)
        assert configuration, f"timm knows no {entry.model}"
        size = configuration.input_size
    else:
        import torchvision

        options: dict[str, object] = {}
        if entry.model in ("googlenet", "inception_v3"):
            options = {"init_weights": True}  # says what else would be warned about
        if entry.library == "torchvision_seg":
            options = {"weights_backbone": None}
        model = torchvision.models.get_model(entry.model, weights=None, **options)
        size = (3, 299, 299) if entry.model == "inception_v3" else (3, 224, 224)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.1)
    return model.eval(), torch.randn(2, *size)


def export(entry: Entry) -> None:
    """Export to ONNX with a dynamic batch, into the cache."""
    import torch

    model, images = build(entry)
    cache().mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        model,
        (images,),
        entry.onnx_file,
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=entry.model in _OVER_TWO_GIB,
        verbose=False,
    )


if __name__ == "__main__":
    export(find(sys.argv[1]))
    say({"status": "exported"})
