"""Evolution of keep ratios: the best breed, by crossover and mutation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from worker.engine.allocation.candidates import SMALLEST, Candidates, PopulationOptions, Vector, run_generations
from worker.engine.allocation.registry import ALLOCATIONS, Problem
from worker.engine.graph.analysis import Counts


class EvolutionaryOptions(PopulationOptions):
    """How the next generation is made."""

    parents: int = Field(default=4, ge=2, le=1000, description="Best candidates so far that breed.")
    mutation_rate: float = Field(default=0.3, ge=0, le=1, description="Share of the ratios that mutate.")
    mutation_scale: float = Field(default=0.2, gt=0, le=1, description="Standard deviation of a mutation.")


@ALLOCATIONS.register(
    "evolutionary",
    title="Evolutionary search",
    summary="Keep ratios of all layers evolve; a candidate is worth what the cut network gets right on validation "
    "images with its norms taken anew.",
    paper="Liu et al., MetaPruning, ICCV 2019, arXiv 1903.10258, section 3.2 (search); Li et al., EagleEye, ECCV 2020, "
    "arXiv 2007.02491 (evaluation)",
    cost="one short evaluation per candidate",
    uses=("accuracy",),
    data="labels",
    exactness="adapted",
    options=EvolutionaryOptions,
)
def evolutionary(problem: Problem, options: EvolutionaryOptions) -> Counts:
    """The best candidate of all generations. Half of each one is bred by crossover and mutated, half mutated alone."""
    candidates = Candidates(problem, options)
    rng = candidates.rng

    def breed(history: Sequence[tuple[Vector, float]]) -> list[Vector]:
        best = sorted(range(len(history)), key=lambda i: (-history[i][1], i))[: options.parents]
        children = []
        for number in range(options.population):
            first, second = (history[best[i]][0] for i in rng.integers(0, len(best), 2))
            child = np.where(rng.random(len(first)) < 0.5, first, second) if number % 2 else first.copy()
            mutates = rng.random(len(child)) < options.mutation_rate
            mutates[rng.integers(len(child))] = True
            child = child + mutates * rng.normal(0, options.mutation_scale, len(child))
            children.append(np.clip(child, SMALLEST, 1.0))
        return children

    return run_generations(candidates, options.population, breed)
