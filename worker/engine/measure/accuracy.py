"""Accuracy of a classifier on labelled images, computed by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from worker.engine.data import Split
from worker.engine.graph import load_model
from worker.engine.measure.classifier import Head, find_head, losses, predicted_classes
from worker.engine.measure.images import batch_size, own_rows, run_images
from worker.engine.measure.session import cpu_session

TOP = 5


@dataclass(frozen=True)
class Evaluation:
    """Shares of samples in 0..1; top5 is None where the model has five classes or fewer."""

    top1: float
    top5: float | None
    loss: float
    samples: int
    predictions: np.ndarray  # (samples,) int64, in the split's order


def evaluate(
    model: onnx.ModelProto | Path,
    split: Split,
    classes: int,
    threads: int | None = None,
    on_progress: Callable[[float], None] = lambda fraction: None,
) -> Evaluation:
    """Run a model over a split that has `classes` classes. Raises EngineError where its outputs are no class scores."""
    proto = load_model(model) if isinstance(model, Path) else model
    head, session = find_head(proto, classes), cpu_session(proto, threads)
    scores, labels = [], []
    for batch, truth in split.batches(batch_size(session)):
        (output,) = run_images(session, batch, [head.name])
        scores.append(head.scores(own_rows(session, output, len(batch)), classes, len(batch)))
        labels.append(truth)
        on_progress(sum(len(truth) for truth in labels) / len(split))
    return _summary(head, np.concatenate(scores), np.concatenate(labels))


def _summary(head: Head, scores: np.ndarray, labels: np.ndarray) -> Evaluation:
    predictions = predicted_classes(head, scores)
    top5 = None
    if scores.shape[1] > TOP:
        best = np.argpartition(-scores, TOP - 1, axis=1)[:, :TOP]
        top5 = float((best == labels[:, None]).any(1).mean())
    return Evaluation(
        top1=float((predictions == labels).mean()),
        top5=top5,
        loss=float(losses(head, scores, labels).mean()),
        samples=len(labels),
        predictions=predictions,
    )
