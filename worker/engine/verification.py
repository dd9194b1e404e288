"""Surgery that proves itself: groups whose cut cannot be proved are found and left alone."""

from worker.engine.graph.analysis import Analysis
from worker.engine.proof import prove
from worker.engine.surgery import Plan, prune


def unprovable_groups(analysis: Analysis, plan: Plan, *, seed: int = 0, tolerance: float = 1e-4) -> tuple[int, ...]:
    """The groups of the plan whose removal alone breaks the equality with the masked original, by bisection.

    Empty where every part passes: then the parts only fail together, and no single group is to blame.
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

    return tuple(search([g for g in sorted(plan.kept) if not plan.kept[g].all()]))
