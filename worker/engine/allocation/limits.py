"""What must not be exceeded: the lines of a budget, each as a cost of the units kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.engine.allocation.latency_table import LatencyTable
from worker.engine.errors import EngineError
from worker.engine.graph.analysis import Analysis, Counts

Cost = Callable[[Counts], npt.NDArray[np.floating[Any]]]
"""Units kept of each group, (..., G) -> (...)."""


@dataclass(frozen=True)
class Limit:
    """One line of a budget: `cost` of what is kept must be at most `goal`; it is `whole` with nothing pruned."""

    name: str
    goal: float
    whole: float
    cost: Cost

    @property
    def unit(self) -> float:
        """What goal and cost are divided by for the line of the budget: ratios are relative to the original."""
        return self.whole if self.name.endswith("_ratio") else 1.0

    def __post_init__(self) -> None:
        if not self.whole > 0:
            raise EngineError(
                "nothing_to_prune",
                f"{self.name} is relative to a model that has none of it: there is nothing to prune.",
                "Prune a model with convolutions or matrix products.",
            )
        if not self.goal > 0:
            raise EngineError("bad_budget", f"{self.name} asks for {self.goal}.", "Ask for more than 0.")

    def keeps(self, kept: Counts) -> bool:
        """Whether what is kept of each group, (G,), costs no more than the goal."""
        return float(self.cost(kept)) <= self.goal

    def relaxed_to(self, floor: Counts) -> Limit:
        """The same limit, or if even the floor exceeds it, as much as the floor costs: what is taken beyond that gains
        nothing, such as part of a block of channels that is computed whole."""
        return replace(self, goal=max(self.goal, float(self.cost(floor)) * (1 + 1e-9)))


def macs_limit(analysis: Analysis, ratio: float) -> Limit:
    """Multiply-accumulates kept / original."""
    return Limit("macs_ratio", ratio * analysis.macs, analysis.macs, lambda kept: analysis.costs.macs(kept) * 1.0)


def params_limit(analysis: Analysis, ratio: float) -> Limit:
    """Parameters kept / original."""
    return Limit(
        "params_ratio", ratio * analysis.params, analysis.params, lambda kept: analysis.costs.params(kept) * 1.0
    )


def size_limit(analysis: Analysis, size_bytes: float, original_bytes: int) -> Limit:
    """Bytes of the ONNX file: what parameters take goes with them, the rest of the file stays."""
    tensors = analysis.graph.constants.values()
    weights = sum(tensor.ByteSize() for tensor in tensors)
    per_param = weights / max(analysis.params, 1)

    def size(kept: Counts) -> npt.NDArray[np.float64]:
        return np.asarray(original_bytes - per_param * (analysis.params - analysis.costs.params(kept)))

    return Limit("size_bytes", size_bytes, original_bytes, size)


def latency_limit(table: LatencyTable, ratio: float) -> Limit:
    """Latency kept / original, by the table; what the cut model takes is measured afterwards."""
    return Limit("latency_ratio", ratio * table.whole, table.whole, table.cost)
