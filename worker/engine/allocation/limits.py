"""What must not be exceeded: the lines of a budget, each as a cost of the units kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from worker.engine.allocation.latency_table import LatencyTable
from worker.engine.errors import EngineError
from worker.engine.graph.analysis import Analysis, Counts

Cost = Callable[[Counts], npt.NDArray[np.floating[Any]]]
"""Units kept of each group, (..., G) -> (...)."""


@dataclass(frozen=True)
class Limit:
    """One line of a budget: `cost` of what is kept must be at most `goal`; it is `whole` with nothing pruned. Where
    earlier rounds pruned, that is the share `left` of the original's."""

    name: str
    goal: float
    whole: float
    cost: Cost
    left: float = 1.0

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
    """Bytes of the ONNX file: the values that go are not stored any more, the rest of it stays, names and shapes of
    tensors too."""
    stored = {term: _bytes_each(analysis.graph.constants[slot[0]]) for slot, term in analysis.slot_terms.items()}
    terms = enumerate(analysis.costs.param_terms)
    values = replace(analysis.costs, param_terms=tuple((c * stored.get(term, 0), dims) for term, (c, dims) in terms))
    whole = int(values.params(analysis.full))

    def size(kept: Counts) -> npt.NDArray[np.float64]:
        return np.asarray(original_bytes - (whole - values.params(kept)), dtype=np.float64)

    return Limit("size_bytes", size_bytes, original_bytes, size)


def _bytes_each(tensor: onnx.TensorProto) -> int:
    """What a value of a tensor takes at least: surgery stores as raw data what it cuts."""
    if tensor.raw_data:
        return len(tensor.raw_data) // max(int(math.prod(tensor.dims)), 1)
    return int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def latency_limit(table: LatencyTable, ratio: float) -> Limit:
    """Latency kept / original, by the table; what the cut model takes is measured afterwards."""
    return Limit("latency_ratio", ratio * table.whole, table.whole, table.cost)
