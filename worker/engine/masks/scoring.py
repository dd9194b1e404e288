"""Many variants of one network scored by the images that they misclassify.

Each variant is a model of its own, so that channels which a mask removes are not computed at all. Images are read and
normalised once for all variants, in batches small enough for the activations to stay in a core's cache; each core works
on variants of its own, for which no core has to wait. Variants of a family that begin alike run their beginning once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import numpy as np
import onnx
from onnxruntime import InferenceSession as Session

from worker.engine.data import Split
from worker.engine.errors import EngineError
from worker.engine.graph.inputs import as_declared, declared_shape, given_inputs
from worker.engine.masks.norms import renormed
from worker.engine.masks.prefix import Prefix, split_at
from worker.engine.measure.classifier import Head, find_head, predicted_classes
from worker.engine.measure.images import filled_up
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
    families: Sequence[Sequence[Variant]],
    split: Split,
    classes: int,
    *,
    shared: Prefix | None = None,
    calibration: np.ndarray | None = None,
    threads: int = 1,
    on_progress: Callable[[float], None] = lambda fraction: None,
) -> tuple[Score, ...]:
    """Misclassified images of each variant, one family after the other; `threads` families at a time. The variants of a
    family compute the same up to the end of `shared`.

    With `calibration`, images (N, ...) in the layout of the input, each variant is scored once its BatchNormalizations
    are taken anew on these.

    Raises EngineError where a variant's outputs are no class scores.
    """
    if not families:
        return ()
    images = _Images(split, families[0][0](), calibration)
    scores: list[Score] = []
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for done, found in enumerate(pool.map(lambda family: _score(family, images, classes, shared), families)):
            scores.extend(found)
            on_progress((done + 1) / len(families))
    return tuple(scores)


class _Images:
    """The batches that every variant sees, in the size and the type that the model takes."""

    def __init__(self, split: Split, model: onnx.ModelProto, calibration: np.ndarray | None) -> None:
        (value,) = given_inputs(model)
        shape = declared_shape(value) or [None]
        self.name, self._value = value.name, value
        self.size = shape[0] if isinstance(shape[0], int) else None
        self.calibration = None if calibration is None else as_declared(value, calibration)
        self.count = len(split)
        self._split = split
        height_width_channels = math.prod(split.images.shape[1:])
        fits = self.count * height_width_channels * 4 <= _CACHED_BYTES
        self._cached = list(self._read()) if fits else None

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return iter(self._cached) if self._cached is not None else self._read()

    def _read(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for batch, truth in self._split.batches(self.size or BATCH_SIZE):
            yield as_declared(self._value, filled_up(batch, self.size or 0)), truth


def _score(family: Sequence[Variant], images: _Images, classes: int, shared: Prefix | None) -> list[Score]:
    model = family[0]()
    head = find_head(model, classes)
    first: Session | None = None
    name, calibration = images.name, images.calibration
    begins_alike = shared is not None and len(family) > 1
    if shared is not None and begins_alike:
        beginning, name = split_at(model, shared)[0], shared.tensor
        if calibration is not None:
            beginning, calibration = renormed(beginning, calibration)
        first = cpu_session(beginning, threads=1)
    sessions = []
    others = (variant() for variant in family[1:])
    for whole in chain([model], others):  # one at a time, for a session holds the weights once more
        model = split_at(whole, shared)[1] if shared is not None and begins_alike else whole
        if calibration is not None:
            model = renormed(model, calibration)[0]
        sessions.append(cpu_session(model, threads=1))
    del model, whole
    wrong = np.zeros(len(sessions), dtype=np.int64)
    for batch, labels in images:
        begun = batch if first is None else _run(first, name, images.name, batch)
        outputs = (_run(session, head.name, name, begun) for session in sessions)
        wrong += [_wrong(head, head.scores(output, classes, len(batch)), labels) for output in outputs]
    return [Score(int(count), images.count) for count in wrong]


def _run(session: Session, output: str, name: str, batch: np.ndarray) -> np.ndarray:
    try:
        return np.asarray(session.run([output], {name: batch})[0])
    except Exception as error:
        raise EngineError(
            "not_runnable",
            f"The masked model does not run on the dataset's images, as {batch.shape}: {error}.",
            "Check the model's input size and layout.",
        ) from error


def _wrong(head: Head, scores: np.ndarray, labels: np.ndarray) -> int:
    return int((predicted_classes(head, scores[: len(labels)]) != labels).sum())
