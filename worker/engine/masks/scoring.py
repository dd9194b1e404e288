"""Many variants of one network scored by the images that they misclassify.

Each variant is a model of its own, so that channels which a mask removes are not computed at all. Images are read and
normalised once for all variants, in batches small enough for the activations to stay in a core's cache; each core works
on a variant of its own, which no core has to wait for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import onnx

from worker.engine.data import Split
from worker.engine.errors import EngineError
from worker.engine.graph.inputs import declared_shape
from worker.engine.measure.classifier import Head, find_head, predicted_classes
from worker.engine.measure.session import cpu_session

BATCH_SIZE = 16
_CACHED_BYTES = 1 << 30
"""Normalised images that are kept; more are read anew for every variant."""

Variant = Callable[[], onnx.ModelProto]
"""Makes the model of one variant; called in the thread that scores it."""


@dataclass(frozen=True)
class Score:
    """Images that a variant misclassifies, of how many."""

    wrong: int
    samples: int

    @property
    def error(self) -> float:
        return self.wrong / self.samples


def score_variants(
    variants: Sequence[Variant],
    split: Split,
    classes: int,
    *,
    samples: int | None = None,
    threads: int = 1,
    on_progress: Callable[[float], None] = lambda fraction: None,
) -> tuple[Score, ...]:
    """Misclassified images of each variant, on the split or its first `samples` images, `threads` variants at a time.

    Raises EngineError where a variant's outputs are no class scores.
    """
    if not variants:
        return ()
    images = _Images(split, variants[0](), samples)
    scores: list[Score] = []
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for score in pool.map(lambda variant: _score(variant(), images, classes), variants):
            scores.append(score)
            on_progress(len(scores) / len(variants))
    return tuple(scores)


class _Images:
    """The batches that every variant sees, in the size that the model takes."""

    def __init__(self, split: Split, model: onnx.ModelProto, samples: int | None) -> None:
        stored = {tensor.name for tensor in model.graph.initializer}
        (value,) = [i for i in model.graph.input if i.name not in stored]
        shape = declared_shape(value) or [None]
        self.name = value.name
        self.size = shape[0] if isinstance(shape[0], int) else None
        self.half = value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
        self.samples = min(samples or len(split), len(split))
        self._split = split
        height_width_channels = math.prod(split.images.shape[1:])
        fits = self.samples * height_width_channels * 4 <= _CACHED_BYTES
        self._cached = list(self._read()) if fits else None

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return iter(self._cached) if self._cached is not None else self._read()

    def _read(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        left = self.samples
        for batch, labels in self._split.batches(self.size or BATCH_SIZE):
            truth = labels[:left]
            left -= len(truth)
            if self.size is None:
                batch = batch[: len(truth)]
            elif len(batch) < self.size:
                batch = np.concatenate([batch, np.repeat(batch[-1:], self.size - len(batch), axis=0)])
            yield batch.astype(np.float16) if self.half else batch, truth
            if not left:
                break


def _score(model: onnx.ModelProto, images: _Images, classes: int) -> Score:
    head, session = find_head(model), cpu_session(model, threads=1)
    wrong = 0
    for batch, labels in images:
        try:
            (output,) = session.run([head.name], {images.name: batch})
        except Exception as error:
            raise EngineError(
                "not_runnable",
                f"The masked model does not run on the dataset's images {batch.shape}: {error}.",
                "Check the model's input size and layout.",
            ) from error
        wrong += _wrong(head, output, labels, classes)
    return Score(wrong, images.samples)


def _wrong(head: Head, output: np.ndarray, labels: np.ndarray, classes: int) -> int:
    scores = head.scores(output, classes)[: len(labels)]
    return int((predicted_classes(head, scores) != labels).sum())
