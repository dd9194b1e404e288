"""The least adversarial of many random masks, beside the L1 vote at the same counts as control."""

from __future__ import annotations

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
from worker.engine.masks.draws import draw_kernels, draw_plan
from worker.engine.masks.scoring import Score, Variant, score_variants
from worker.engine.surgery import Plan, prune


@dataclass(frozen=True)
class Search:
    """How masks are drawn and scored: on the validation split, before any training."""

    dataset: Dataset
    count: int = 100
    samples: int | None = None
    seed: int = 0
    threads: int = 1
    on_progress: Callable[[float], None] = lambda fraction: None

    def scores(self, variants: list[Variant]) -> tuple[Score, ...]:
        return score_variants(
            variants,
            self.dataset.validation,
            len(self.dataset.classes),
            samples=self.samples,
            threads=self.threads,
            on_progress=self.on_progress,
        )


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
    control = plan_of(analysis, score(analysis, "l1"), kept)

    def variant(plan: Plan) -> Variant:
        return lambda: prune(analysis, plan)

    plans = [draw_plan(analysis, kept, search.seed, number) for number in range(search.count)]
    scores = search.scores([variant(plan) for plan in (*plans, control)])
    outcome = Outcome(scores[:-1], scores[-1])
    return plans[outcome.best], outcome


def best_kernels(
    model: onnx.ModelProto, analysis: Analysis, targets: list[Target], sparsity: float, search: Search
) -> tuple[dict[str, np.ndarray], Outcome]:
    """Kernels: masks (outputs, inputs) by weight, drawn `search.count` times at `sparsity`."""

    def variant(number: int) -> Variant:
        return lambda: masked(model, dict(draw_kernels(targets, sparsity, search.seed, number)))

    control = masked(model, _vote_on_kernels(analysis, targets, sparsity))
    scores = search.scores([*(variant(number) for number in range(search.count)), lambda: control])
    outcome = Outcome(scores[:-1], scores[-1])
    return dict(draw_kernels(targets, sparsity, search.seed, outcome.best)), outcome


def _vote_on_kernels(analysis: Analysis, targets: list[Target], sparsity: float) -> dict[str, np.ndarray]:
    return {
        target.weight: weakest_kernels_gone(importance(analysis.graph.array(target.weight), "l1"), sparsity)
        for target in targets
    }
