"""Labelled images: uploads read safely, split reproducibly, and handed out as batches."""

from worker.engine.data.augmentation import Augmentation
from worker.engine.data.dataset import DataOptions, Dataset, Split, open_dataset
from worker.engine.data.facts import DatasetFacts, inspect_dataset
from worker.engine.data.input_spec import InputSpec

__all__ = [
    "Augmentation",
    "DataOptions",
    "Dataset",
    "DatasetFacts",
    "InputSpec",
    "Split",
    "inspect_dataset",
    "open_dataset",
]
