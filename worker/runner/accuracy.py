"""Accuracy of a model file on the test split of the job's dataset, as the report has it, and what it is taken of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from models_store.documents.report import Accuracy
from worker.engine.measure import evaluate, possible_heads
from worker.runner.workbench import Workbench


def accuracy(
    bench: Workbench, path: Path, on_progress: Callable[[float], None] | None = None
) -> tuple[Accuracy, np.ndarray]:
    """The figures, and the predicted class of each test sample. Needs a job with labels."""
    if bench.dataset is None or not bench.dataset.labelled:
        raise ValueError("a job without labels has no accuracy")
    found = evaluate(
        path,
        bench.dataset.test,
        len(bench.dataset.classes),
        bench.order.threads,
        on_progress or bench.voice.progress,
    )
    figures = Accuracy(top1=found.top1, top5=found.top5, loss=found.loss, samples=found.samples)
    return figures, found.predictions


def heads(bench: Workbench) -> tuple[str, ...]:
    """Outputs of the original that are as likely as each other to be its class scores; the first one is taken. None
    where the job has no labels."""
    if bench.dataset is None or not bench.dataset.labelled:
        return ()
    return tuple(head.name for head in possible_heads(bench.original, len(bench.dataset.classes)))
