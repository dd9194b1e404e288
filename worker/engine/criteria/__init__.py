"""How important each unit of each group is. One file per criterion; the registry finds them by name."""

from worker.engine.criteria import magnitude, random
from worker.engine.criteria.registry import CRITERIA, Scores, score

__all__ = ["CRITERIA", "Scores", "magnitude", "random", "score"]
