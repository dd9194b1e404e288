"""Particle swarm: candidates fly towards the best places that they and the swarm have seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from worker.engine.allocation.candidates import SMALLEST, Candidates, PopulationOptions, Vector, run_generations
from worker.engine.allocation.registry import ALLOCATIONS, Problem
from worker.engine.graph.analysis import Counts


class ParticleSwarmOptions(PopulationOptions):
    """The constriction of Clerc and Kennedy (IEEE Transactions on Evolutionary Computation 6, 2002)."""

    inertia: float = Field(default=0.7298, ge=0, le=1, description="Of the velocity.")
    own: float = Field(default=1.4962, ge=0, le=4, description="Pull towards a particle's own best place.")
    swarm: float = Field(default=1.4962, ge=0, le=4, description="Pull towards the swarm's best place.")


@ALLOCATIONS.register(
    "particle_swarm",
    title="Particle swarm",
    summary="Keep ratios of all layers as particles that are drawn to the best found so far; a candidate is worth what "
    "the cut network gets right on validation images with its norms taken anew.",
    paper="Kennedy and Eberhart, Particle Swarm Optimization, ICNN 1995; Li et al., EagleEye, ECCV 2020, "
    "arXiv 2007.02491 (evaluation)",
    cost="one short evaluation per candidate",
    uses=("accuracy",),
    data="labels",
    exactness="adapted",
    options=ParticleSwarmOptions,
)
def particle_swarm(problem: Problem, options: ParticleSwarmOptions) -> Counts:
    """The best place of the swarm."""
    candidates = Candidates(problem, options)
    rng, size = candidates.rng, options.population
    velocity = rng.uniform(-0.1, 0.1, (size, candidates.dimensions))

    def fly(history: Sequence[tuple[Vector, float]]) -> list[Vector]:
        """History is in the order of the particles, round after round."""
        nonlocal velocity
        places = np.stack([history[len(history) - size + i][0] for i in range(size)])
        own = np.stack([max(history[i::size], key=lambda seen: seen[1])[0] for i in range(size)])
        swarm = max(history, key=lambda seen: seen[1])[0]
        pulls = rng.random((2, *places.shape))
        velocity = (
            options.inertia * velocity
            + options.own * pulls[0] * (own - places)
            + options.swarm * pulls[1] * (swarm - places)
        )
        return list(np.clip(places + velocity, SMALLEST, 1.0))

    return run_generations(candidates, size, fly)
