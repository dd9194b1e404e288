"""evaluate: accuracy right after the cut and of the final model, on the test split."""

from __future__ import annotations

import numpy as np

from models_store.documents.base import Document
from models_store.documents.report import AccuracyRows
from worker.runner.accuracy import accuracy
from worker.runner.stages import baseline
from worker.runner.workbench import Stage, Workbench


class Evaluated(Document):
    """The original, the cut and the final model side by side."""

    accuracy: AccuracyRows


def run(bench: Workbench) -> Evaluated:
    original = bench.read(baseline.STAGE).accuracy
    if original is None:
        raise ValueError("the baseline of a job with a dataset has an accuracy")
    after_cut, predictions = accuracy(bench, bench.cut_path, lambda share: bench.voice.progress(share / 2))
    final = after_cut
    if bench.final_path.exists():
        final, predictions = accuracy(bench, bench.final_path, lambda share: bench.voice.progress(0.5 + share / 2))
    changed = float((predictions != np.load(bench.original_predictions_path)).mean())
    rows = AccuracyRows(original=original, after_cut=after_cut, final=final, changed_labels=changed)
    return Evaluated(accuracy=rows)


def reason_to_skip(bench: Workbench) -> str | None:
    return "The job has no dataset." if bench.order.dataset is None else None


STAGE = Stage("evaluate", Evaluated, run, reason_to_skip)
