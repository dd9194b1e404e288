"""Which cuts cannot be proved, so that they can be left alone."""

from worker.engine.graph.analysis import Analysis
from worker.engine.proof import prove
from worker.engine.surgery import Plan, prune


def unprovable_units(analysis: Analysis, plan: Plan, *, seed: int = 0, tolerance: float = 1e-4) -> tuple[int, ...]:
    """The units of those groups whose cut alone breaks the equality with the masked original, found by bisection.

    Empty where every part passes: then the parts only fail together, and no single group is to blame. Give the units
    to `Analysis.without`, and allocate again.
    """

    def passes(groups: list[int]) -> bool:
        part = Plan({g: plan.kept[g] for g in groups})
        return prove(analysis, part, prune(analysis, part), seed=seed, inputs_per_size=1, tolerance=tolerance).passed

    def search(groups: list[int]) -> list[int]:
        if not groups or passes(groups):
            return []
        if len(groups) == 1:
            return groups
        middle = len(groups) // 2
        return search(groups[:middle]) + search(groups[middle:])

    guilty = search([g for g in sorted(plan.kept) if not plan.kept[g].all()])
    return tuple(int(unit) for g in guilty for unit in analysis.groups[g].units)
