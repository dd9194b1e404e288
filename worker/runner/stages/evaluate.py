"""evaluate: accuracy right after the cut, after recovery, and of the final model, on the test split."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models_store.documents.base import Document
from models_store.documents.report import Accuracy, AccuracyRows
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
    paths = [path for path in (bench.cut_path, bench.recovered_path, bench.final_path) if path.exists()]
    found: dict[Path, Accuracy] = {}
    for done, path in enumerate(paths):

        def progress(share: float, done: int = done) -> None:
            bench.voice.progress((done + share) / len(paths))

        found[path], predictions = accuracy(bench, path, progress)
    changed = float((predictions != np.load(bench.original_predictions_path)).mean())
    rows = AccuracyRows(
        original=original,
        after_cut=found[bench.cut_path],
        after_recovery=found.get(bench.recovered_path),
        final=found[bench.best_path],
        changed_labels=changed,
    )
    return Evaluated(accuracy=rows)


def reason_to_skip(bench: Workbench) -> str | None:
    return "The job has no dataset." if bench.order.dataset is None else None


STAGE = Stage("evaluate", Evaluated, run, reason_to_skip)
