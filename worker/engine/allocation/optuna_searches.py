"""Searches that Optuna carries out: TPE, CMA-ES and NSGA-II."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from worker.engine.allocation.candidates import SMALLEST, Candidates, PopulationOptions, SearchOptions, Vector
from worker.engine.allocation.registry import ALLOCATIONS, Problem
from worker.engine.graph.analysis import Counts

if TYPE_CHECKING:
    import optuna

_EVALUATION = "Li et al., EagleEye, ECCV 2020, arXiv 2007.02491 (evaluation); carried out by Optuna"
_WORTH = "a candidate is worth what the cut network gets right on validation images with its norms taken anew."


class CmaEsOptions(SearchOptions):
    """A covariance is not adapted by fewer than four."""

    population: int = Field(default=12, ge=4, le=1000, description="Candidates at a time.")


@ALLOCATIONS.register(
    "tpe",
    title="TPE",
    summary=f"Bayesian optimisation of all layers' keep ratios by tree-structured Parzen estimators; {_WORTH}",
    paper=f"Bergstra et al., Algorithms for Hyper-Parameter Optimization, NIPS 2011; {_EVALUATION}",
    cost="one short evaluation per candidate",
    uses=("accuracy",),
    data="labels",
    exactness="adapted",
    options=SearchOptions,
)
def tpe(problem: Problem, options: SearchOptions) -> Counts:
    """The best candidate that a multivariate TPE asked for."""
    import optuna

    with _quiet():
        startup = min(10, max(options.evaluations // 3, 1))
        sampler = optuna.samplers.TPESampler(seed=problem.seed, multivariate=True, n_startup_trials=startup)
    return _search(problem, options, sampler)


@ALLOCATIONS.register(
    "cma_es",
    title="CMA-ES",
    summary=f"Covariance matrix adaptation over all layers' keep ratios; {_WORTH}",
    paper=f"Hansen and Ostermeier, Evolutionary Computation 9, 2001; {_EVALUATION}",
    cost="one short evaluation per candidate",
    uses=("accuracy",),
    data="labels",
    exactness="adapted",
    options=CmaEsOptions,
)
def cma_es(problem: Problem, options: CmaEsOptions) -> Counts:
    """The best candidate that CMA-ES asked for."""
    import optuna

    with _quiet():
        sampler = optuna.samplers.CmaEsSampler(
            seed=problem.seed, popsize=options.population, n_startup_trials=2, warn_independent_sampling=False
        )
    return _search(problem, options, sampler)


@ALLOCATIONS.register(
    "nsga2",
    title="NSGA-II",
    summary="Two goals at once, accuracy and cost, by non-dominated sorting; the most accurate candidate within the "
    f"budget wins; {_WORTH}",
    paper=f"Deb et al., IEEE Transactions on Evolutionary Computation 6, 2002; {_EVALUATION}",
    cost="one short evaluation per candidate",
    uses=("accuracy",),
    data="labels",
    exactness="adapted",
    options=PopulationOptions,
)
def nsga2(problem: Problem, options: PopulationOptions) -> Counts:
    """The most accurate candidate of all fronts."""
    import optuna

    with _quiet():
        sampler = optuna.samplers.NSGAIISampler(seed=problem.seed, population_size=options.population)
    return _search(problem, options, sampler, both_goals=True)


def _search(
    problem: Problem, options: SearchOptions, sampler: optuna.samplers.BaseSampler, *, both_goals: bool = False
) -> Counts:
    """Ask and tell until no evaluation is left."""
    import optuna

    candidates = Candidates(problem, options)
    names = [f"w{number}" for number in range(candidates.dimensions)]
    space: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.FloatDistribution(SMALLEST, 1.0) for name in names
    }
    with _quiet():
        study = optuna.create_study(
            sampler=sampler, directions=["maximize", "minimize"] if both_goals else ["maximize"]
        )
        for vector in candidates.first():
            study.enqueue_trial(dict(zip(names, vector.tolist(), strict=True)))
        while candidates.left > 0:
            trial = study.ask(space)
            vector = np.array([trial.params[name] for name in names])
            study.tell(trial, _values(candidates, vector, both_goals))
    return candidates.finish()


def _values(candidates: Candidates, vector: Vector, both_goals: bool) -> list[float]:
    return list(candidates.evaluate_both(vector)) if both_goals else [candidates.evaluate(vector)]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's log lines and its notes on what is experimental."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
