"""Accuracy of a classifier on labelled images, computed by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from worker.engine.data import Split
from worker.engine.errors import EngineError
from worker.engine.measure.classifier import Head, find_head, losses, predicted_classes
from worker.engine.measure.session import cpu_session

BATCH_SIZE = 64
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
    proto = onnx.load(model, load_external_data=False) if isinstance(model, Path) else model
    head, session = find_head(proto), cpu_session(model, threads)
    scores, labels = [], []
    for batch, truth in split.batches(_batch_size(session)):
        scores.append(head.scores(_run(session, head, batch), classes)[: len(truth)])
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


def _run(session: onnxruntime.InferenceSession, head: Head, batch: np.ndarray) -> np.ndarray:
    """The head's output for a batch, filled up by repetition where the model's batch size is fixed."""
    wanted, value = _fixed_batch(session), session.get_inputs()[0]
    if wanted is not None and len(batch) < wanted:
        batch = np.concatenate([batch, np.repeat(batch[-1:], wanted - len(batch), axis=0)])
    dtype = np.float16 if value.type == "tensor(float16)" else np.float64 if value.type == "tensor(double)" else None
    try:
        outputs = session.run([head.name], {value.name: batch if dtype is None else batch.astype(dtype)})
    except Exception as error:
        raise EngineError(
            "not_runnable",
            f"The model does not run on the dataset's images {batch.shape}: {error}.",
            "Check the model's input size and layout.",
        ) from error
    output: np.ndarray = outputs[0]
    return output


def _batch_size(session: onnxruntime.InferenceSession) -> int:
    return _fixed_batch(session) or BATCH_SIZE


def _fixed_batch(session: onnxruntime.InferenceSession) -> int | None:
    size = session.get_inputs()[0].shape[0]
    return size if isinstance(size, int) else None
