"""baseline: what the original costs and, where there are labels, how good it is."""

from __future__ import annotations

import numpy as np

from models_store.documents.base import Document
from models_store.documents.report import Accuracy, Cost
from worker.runner.accuracy import accuracy
from worker.runner.cost import cost
from worker.runner.workbench import Stage, Workbench


class Baseline(Document):
    """The original model."""

    cost: Cost
    accuracy: Accuracy | None


def run(bench: Workbench) -> Baseline:
    path = bench.model_file.path
    measured = None
    if bench.dataset is not None and bench.dataset.labelled:
        measured, predictions = accuracy(bench, path)
        np.save(bench.original_predictions_path, predictions)
    return Baseline(cost=cost(bench.analysis.macs, bench.analysis.params, path), accuracy=measured)


STAGE = Stage("baseline", Baseline, run)
