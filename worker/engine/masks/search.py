"""The least adversarial of many random masks, beside the L1 vote at the same counts as control."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from worker.engine.allocation import plan_of
from worker.engine.criteria import score
from worker.engine.data import Dataset, Split
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
_NOTHING: Mapping[int, Score] = {}


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

    def images(self) -> Split:
        """The validation images that score the masks: all, or as many as are asked for, drawn by the seed."""
        split = self.dataset.validation
        return split if self.samples is None else split.drawn(self.samples, np.random.default_rng([self.seed, 6]))

    def calibration(self) -> np.ndarray | None:
        """The images for that, drawn by the seed; as few as fit, where they are large."""
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


@dataclass(frozen=True)
class Contest:
    """The draws of one network: any family of them can be scored by itself, by any worker."""

    search: Search
    draws: Draws
    variant: Callable[[int], Variant]
    control: Callable[[], onnx.ModelProto]

    @property
    def families(self) -> list[range]:
        return self.draws.families(self.search.count)

    def score(self, families: Sequence[range]) -> tuple[Score, ...]:
        """Scores of the draws in these families, in their order."""
        return self._scores([[self.variant(number) for number in family] for family in families])

    def outcome(self, known: Mapping[int, Score] = _NOTHING) -> Outcome:
        """Scores of all draws and of the control; the draws in `known` are not scored again."""
        left = [family for family in self.families if not all(number in known for number in family)]
        variants = [[self.variant(number) for number in family] for family in left]
        *found, control = self._scores([*variants, [self.control]])
        scores = {**known, **dict(zip((number for family in left for number in family), found, strict=True))}
        return Outcome(tuple(scores[number] for number in range(self.search.count)), control)

    def _scores(self, variants: list[list[Variant]]) -> tuple[Score, ...]:
        search = self.search
        return score_variants(
            variants,
            search.images(),
            len(search.dataset.classes),
            shared=self.draws.prefix,
            calibration=search.calibration(),
            threads=search.threads,
            on_progress=search.on_progress,
        )


def channel_contest(analysis: Analysis, kept: Counts, search: Search) -> Contest:
    """`kept[g]` units of each group stay. Variants are pruned networks."""
    draws = search.draws(analysis)

    def variant(number: int) -> Variant:
        return lambda: prune(analysis, draw_plan(analysis, kept, draws, number))

    def control() -> onnx.ModelProto:
        return prune(analysis, plan_of(analysis, score(analysis, "l1"), kept))

    return Contest(search, draws, variant, control)


def kernel_contest(analysis: Analysis, targets: list[Target], sparsity: float, search: Search) -> Contest:
    """Kernels of the targets go, at `sparsity`. Variants are networks with zeros."""
    draws, model = search.draws(analysis), analysis.graph.model

    def variant(number: int) -> Variant:
        return lambda: masked(model, dict(draw_kernels(targets, sparsity, draws, number)))

    def control() -> onnx.ModelProto:
        return masked(model, _vote_on_kernels(analysis, targets, sparsity))

    return Contest(search, draws, variant, control)


def best_plan(analysis: Analysis, kept: Counts, search: Search) -> tuple[Plan, Outcome]:
    """The channels of the best of `search.count` draws that keep `kept[g]` units of each group."""
    contest = channel_contest(analysis, kept, search)
    outcome = contest.outcome()
    return draw_plan(analysis, kept, contest.draws, outcome.best), outcome


def best_kernels(
    analysis: Analysis, targets: list[Target], sparsity: float, search: Search
) -> tuple[dict[str, np.ndarray], Outcome]:
    """The kernels of the best of `search.count` draws: masks (outputs, inputs) by weight."""
    contest = kernel_contest(analysis, targets, sparsity, search)
    outcome = contest.outcome()
    return dict(draw_kernels(targets, sparsity, contest.draws, outcome.best)), outcome


def _vote_on_kernels(analysis: Analysis, targets: list[Target], sparsity: float) -> dict[str, np.ndarray]:
    return {
        target.weight: weakest_kernels_gone(importance(analysis.graph.array(target.weight), "l1"), sparsity)
        for target in targets
    }
