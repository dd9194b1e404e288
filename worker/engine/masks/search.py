"""The least adversarial of many random masks, beside the L1 vote at the same counts as control."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx

from worker.engine.allocation import plan_of
from worker.engine.criteria import score
from worker.engine.data import Dataset
from worker.engine.graph.analysis import Analysis, Counts
from worker.engine.kernels.layouts.free import weakest_kernels_gone
from worker.engine.kernels.proof import masked
from worker.engine.kernels.targets import Target, importance
from worker.engine.masks.draws import Draws, draw_kernels, draw_plan
from worker.engine.masks.prefix import longest_prefix
from worker.engine.masks.scoring import Score, Variant, score_variants
from worker.engine.surgery import Plan, prune

_CALIBRATION_BYTES = 32 * 2**20
"""Of one batch of calibration images: a network's activations of them are many times as large."""
_LEAST_CALIBRATION = 16


@dataclass(frozen=True)
class Search:
    """How masks are drawn and scored: on the validation split, before any training."""

    dataset: Dataset
    count: int = 100
    family: int = 10
    samples: int | None = None
    calibration_images: int = 0
    """Training images on which the norms of every mask are taken anew; 0 leaves them as they are."""
    seed: int = 0
    threads: int = 1
    on_progress: Callable[[float], None] = lambda fraction: None

    def draws(self, analysis: Analysis) -> Draws:
        """How the masks of a network are numbered; a family shares at most half of the multiply-accumulates."""
        return Draws(self.seed, self.family, longest_prefix(analysis, 0.5) if self.family > 1 else None)

    def outcome(self, draws: Draws, variant: Callable[[int], Variant], control: onnx.ModelProto) -> Outcome:
        """Scores of all draws and of the control."""
        families = [[variant(number) for number in family] for family in draws.families(self.count)]
        scores = score_variants(
            [*families, [lambda: control]],
            self.dataset.validation,
            len(self.dataset.classes),
            shared=draws.prefix.tensor if draws.prefix is not None else None,
            samples=self.samples,
            calibration=self._calibration(),
            threads=self.threads,
            on_progress=self.on_progress,
        )
        return Outcome(scores[:-1], scores[-1])

    def _calibration(self) -> np.ndarray | None:
        if not self.calibration_images:
            return None
        images = self.dataset.train.images
        most = max(_CALIBRATION_BYTES // (4 * math.prod(images.shape[1:])), _LEAST_CALIBRATION)
        rng = np.random.default_rng([self.seed, 5])
        batch, _ = next(self.dataset.train.batches(min(self.calibration_images, most), rng=rng))
        return batch


@dataclass(frozen=True)
class Outcome:
    """Scores of all draws in their order, and of the control. The first of the best wins."""

    scores: tuple[Score, ...]
    control: Score

    @property
    def best(self) -> int:
        return int(np.argmin([score.wrong for score in self.scores]))


def best_plan(analysis: Analysis, kept: Counts, search: Search) -> tuple[Plan, Outcome]:
    """Channels: `kept[g]` units of each group stay, drawn `search.count` times. Variants are pruned networks."""
    draws = search.draws(analysis)

    def variant(number: int) -> Variant:
        return lambda: prune(analysis, draw_plan(analysis, kept, draws, number))

    control = prune(analysis, plan_of(analysis, score(analysis, "l1"), kept))
    outcome = search.outcome(draws, variant, control)
    return draw_plan(analysis, kept, draws, outcome.best), outcome


def best_kernels(
    analysis: Analysis, targets: list[Target], sparsity: float, search: Search
) -> tuple[dict[str, np.ndarray], Outcome]:
    """Kernels: masks (outputs, inputs) by weight, drawn `search.count` times at `sparsity`."""
    draws, model = search.draws(analysis), analysis.graph.model

    def variant(number: int) -> Variant:
        return lambda: masked(model, dict(draw_kernels(targets, sparsity, draws, number)))

    outcome = search.outcome(draws, variant, masked(model, _vote_on_kernels(analysis, targets, sparsity)))
    return dict(draw_kernels(targets, sparsity, draws, outcome.best)), outcome


def _vote_on_kernels(analysis: Analysis, targets: list[Target], sparsity: float) -> dict[str, np.ndarray]:
    return {
        target.weight: weakest_kernels_gone(importance(analysis.graph.array(target.weight), "l1"), sparsity)
        for target in targets
    }
