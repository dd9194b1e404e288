"""Random masks in a job: drawn, scored on the validation images, and told of in the report."""

from __future__ import annotations

import time

import numpy as np

from models_store.documents.random_masks import RandomMasks
from models_store.documents.report import MaskSearch
from worker.engine.graph import Analysis
from worker.engine.kernels import Target
from worker.engine.masks.search import Outcome, Search, best_kernels, best_plan
from worker.engine.surgery import Plan
from worker.runner.workbench import Workbench


def draw_channels(bench: Workbench, wanted: RandomMasks, allocated: Plan) -> tuple[Plan, MaskSearch]:
    """The best draw of channels that keeps as many of each group as the allocation does."""
    start = time.monotonic()
    kept = allocated.counts(bench.analysis)
    plan, outcome = best_plan(bench.analysis, kept, _search(bench, wanted))
    return plan, _told("feature_map", outcome, start)


def draw_kernels(
    bench: Workbench, wanted: RandomMasks, analysis: Analysis, targets: list[Target], sparsity: float
) -> tuple[dict[str, np.ndarray], MaskSearch]:
    """The best draw of kernels of the cut model: (outputs, inputs) by weight."""
    start = time.monotonic()
    masks, outcome = best_kernels(analysis, targets, sparsity, _search(bench, wanted))
    return masks, _told("kernel", outcome, start)


def spread(kernels: np.ndarray, like: np.ndarray) -> np.ndarray:
    """A mask (outputs, inputs) in the shape of its weight."""
    return np.broadcast_to(kernels.reshape(*kernels.shape, *[1] * (like.ndim - 2)), like.shape)


def _search(bench: Workbench, wanted: RandomMasks) -> Search:
    if bench.dataset is None:
        raise ValueError("random masks are scored on a dataset")
    return Search(
        bench.dataset,
        count=wanted.count,
        family=wanted.family,
        samples=wanted.samples,
        calibration_images=wanted.calibration_images if wanted.bn_reestimation else 0,
        seed=bench.spec.seed,
        threads=bench.order.threads,
        on_progress=bench.voice.progress,
    )


def _told(granularity: str, outcome: Outcome, start: float) -> MaskSearch:
    return MaskSearch.model_validate(
        {
            "granularity": granularity,
            "samples": outcome.control.samples,
            "errors": [score.error for score in outcome.scores],
            "best": outcome.best,
            "control": outcome.control.error,
            "seconds": time.monotonic() - start,
        }
    )
