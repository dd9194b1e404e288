"""evaluate: the model right after the cut, after recovery, and at the end, on the test split: its accuracy where there
are labels, and how far the outputs of which no label tells anything are from the original's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import numpy as np

from models_store.documents.base import Document
from models_store.documents.report import AccuracyRows, Fidelity, FidelityRows, OutputError
from worker.engine.measure import fidelity, find_head
from worker.runner.accuracy import accuracy
from worker.runner.stages import baseline
from worker.runner.workbench import Stage, Workbench

Progress = Callable[[float], None]
T = TypeVar("T")


class Evaluated(Document):
    """The original, the cut and the final model side by side."""

    accuracy: AccuracyRows | None
    fidelity: FidelityRows | None = None


def run(bench: Workbench) -> Evaluated:
    if bench.dataset is None:
        raise ValueError("a job without a dataset has nothing to evaluate on")
    if not bench.dataset.labelled:
        return Evaluated(accuracy=None, fidelity=_fidelity(bench, None))
    others = _beside_the_scores(bench)
    return Evaluated(accuracy=_accuracy(bench), fidelity=_fidelity(bench, others) if others else None)


def _accuracy(bench: Workbench) -> AccuracyRows:
    original = bench.read(baseline.STAGE).accuracy
    if original is None:
        raise ValueError("the baseline of a job with labels has an accuracy")
    found = _each(bench, lambda path, progress: accuracy(bench, path, progress))
    _, predictions = found[bench.best_path]
    recovered = found.get(bench.recovered_path)
    return AccuracyRows(
        original=original,
        after_cut=found[bench.cut_path][0],
        after_recovery=recovered[0] if recovered else None,
        final=found[bench.best_path][0],
        changed_labels=float((predictions != np.load(bench.original_predictions_path)).mean()),
    )


def _beside_the_scores(bench: Workbench) -> tuple[str, ...]:
    """The classifier's outputs that say more than its class scores."""
    if bench.dataset is None or len(bench.original.graph.output) == 1:
        return ()
    from worker.engine.recovery import outputs_beside  # of other jobs this stage needs no torch

    return outputs_beside(bench.original, find_head(bench.original, len(bench.dataset.classes)).logits)


def _fidelity(bench: Workbench, outputs: Sequence[str] | None) -> FidelityRows:
    """Of these outputs, or of all."""
    if bench.dataset is None:
        raise ValueError("outputs are compared on images")
    images = bench.dataset.test

    def measure(path: Path, progress: Progress) -> Fidelity:
        found = fidelity(bench.model_file.path, path, images, bench.order.threads, progress, outputs)
        errors = tuple(OutputError(**asdict(output)) for output in found.outputs)
        return Fidelity(error=found.error, outputs=errors, samples=found.samples)

    found = _each(bench, measure)
    return FidelityRows(
        after_cut=found[bench.cut_path],
        after_recovery=found.get(bench.recovered_path),
        final=found[bench.best_path],
    )


def _each(bench: Workbench, measure: Callable[[Path, Progress], T]) -> dict[Path, T]:
    """What `measure` finds of the cut, the recovered and the final model, as far as they exist."""
    paths = [path for path in (bench.cut_path, bench.recovered_path, bench.final_path) if path.exists()]
    found: dict[Path, T] = {}
    for done, path in enumerate(paths):

        def progress(share: float, done: int = done) -> None:
            bench.voice.progress((done + share) / len(paths))

        found[path] = measure(path, progress)
    return found


def reason_to_skip(bench: Workbench) -> str | None:
    return "The job has no dataset." if bench.order.dataset is None else None


STAGE = Stage("evaluate", Evaluated, run, reason_to_skip)
