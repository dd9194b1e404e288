"""How important each unit of each group is. One file per criterion; the registry finds them by name."""

from worker.engine.criteria.evidence import Calibration
from worker.engine.criteria.registry import CRITERIA, Scores, score

CRITERIA.load(__name__)

__all__ = ["CRITERIA", "Calibration", "Scores", "score"]
