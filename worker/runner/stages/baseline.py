"""baseline: what the original costs and, where there are labels, how good it is."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from models_store.documents.base import Document
from models_store.documents.report import Accuracy, Cost
from worker.engine.data import Dataset
from worker.runner.accuracy import accuracy
from worker.runner.cost import cost
from worker.runner.workbench import Stage, Workbench


class Baseline(Document):
    """The original model."""

    cost: Cost
    accuracy: Accuracy | None
    converted: str = Field(default="", description="What was done to images that did not fit the model's input.")


def run(bench: Workbench) -> Baseline:
    path = bench.model_file.path
    measured = None
    if bench.dataset is not None and bench.dataset.labelled:
        measured, predictions = accuracy(bench, path)
        np.save(bench.original_predictions_path, predictions)
    converted = "" if bench.dataset is None else _converted(bench.dataset)
    if converted:
        bench.voice.log(converted)
    original = cost(bench.analysis.macs, bench.analysis.params, path)
    return Baseline(cost=original, accuracy=measured, converted=converted)


def _converted(dataset: Dataset) -> str:
    """A sentence where images had to be made to fit the model's input; empty where all did."""
    if not dataset.converted:
        return ""
    count, height, width, channels = dataset.train.images.shape
    colours = "channel" if channels == 1 else "channels"
    return (
        f"{dataset.converted} of {count} images did not have the {height} x {width} pixels and {channels} {colours} of "
        "the model's input: they were resized, without keeping the aspect ratio, or their colours converted."
    )


STAGE = Stage("baseline", Baseline, run)
