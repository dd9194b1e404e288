"""What a network is probed on: a few images of a dataset, or random inputs where there is none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
import torch

from worker.engine.data import Split
from worker.engine.graph.analysis import Analysis
from worker.engine.graph.inputs import declared_shape, random_inputs, with_batch
from worker.engine.graph.onnx_graph import Array

Kind = Literal["images", "random inputs"]


@dataclass(frozen=True)
class Images:
    """Inputs of a model by name, (N, ...), and the class numbers (N,) of what they show, None where unknown. Those of a
    split are read batch by batch."""

    kind: Kind
    inputs: Mapping[str, Array | Split]
    labels: Array | None
    classes: int
    batch: int | None
    """The batch size of a model that takes no other."""

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def count(self, size: int) -> int:
        """How many batches of that size there are."""
        return math.ceil(len(self) / (self.batch or size))

    def batches(self, size: int) -> Iterator[tuple[tuple[torch.Tensor, ...], Array | None]]:
        """Tensors in the order of the model's inputs, and labels. The last batch of a model with a fixed one is filled
        up by repetition, and has fewer labels."""
        size = self.batch or size
        for start in range(0, len(self), size):
            chosen = np.arange(start, min(start + size, len(self)))
            labels = None if self.labels is None else self.labels[chosen]
            fed = np.resize(chosen, self.batch) if self.batch is not None else chosen
            yield tuple(torch.from_numpy(np.ascontiguousarray(value[fed])) for value in self.inputs.values()), labels


def some_images(analysis: Analysis, split: Split, count: int, classes: int, seed: int = 0) -> Images:
    """At most `count` images of the split, drawn by `seed`."""
    (value,) = analysis.graph.inputs
    drawn = split.shuffled(np.random.default_rng([seed, 5]))[:count]
    return Images("images", {value.name: drawn}, drawn.labels if classes else None, classes, _fixed_batch(value))


def some_noise(analysis: Analysis, count: int, seed: int = 0) -> Images:
    """Random inputs, uniform in 0..1 like images; as many as one batch has where the model's is fixed."""
    graph = analysis.graph
    inputs = random_inputs(graph, with_batch(graph, analysis.facts.sizes, count), seed)
    fixed = {name: len(array) for name, array in inputs.items() if array.ndim}
    return Images("random inputs", inputs, None, 0, next(iter(fixed.values()), 1))


def _fixed_batch(value: onnx.ValueInfoProto) -> int | None:
    first = (declared_shape(value) or [None])[0]
    return first if isinstance(first, int) else None
