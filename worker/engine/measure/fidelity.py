"""How far a pruned model's outputs are from the original's, on images whose labels are not needed: for any task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import numpy as np

from worker.engine.data import Split
from worker.engine.graph import load_model
from worker.engine.measure.images import batch_size, own_rows, run_images
from worker.engine.measure.session import cpu_session


@dataclass(frozen=True)
class OutputError:
    """One output. `error` of floating-point numbers is the root mean square of the differences over the standard
    deviation of the original's numbers, or over their size where they are all the same; of integers and flags, the
    share that differs. None where the original and the pruned model give different shapes, as where each finds its own
    number of boxes."""

    name: str
    error: float | None


@dataclass(frozen=True)
class Fidelity:
    outputs: tuple[OutputError, ...]
    samples: int

    @property
    def error(self) -> float | None:
        """The mean over the outputs that can be compared; None where none can."""
        known = [output.error for output in self.outputs if output.error is not None]
        return sum(known) / len(known) if known else None


@dataclass
class _Sums:
    squared_difference: float = 0.0
    square: float = 0.0
    plain: float = 0.0
    count: int = 0
    different: int = 0
    comparable: bool = True
    exact: bool = False

    def add(self, original: np.ndarray, pruned: np.ndarray) -> None:
        if original.shape != pruned.shape or original.dtype.kind not in "fiub":
            self.comparable = False
            return
        self.exact = original.dtype.kind != "f"
        a, b = original.astype(np.float64), pruned.astype(np.float64)
        self.squared_difference += float(np.square(a - b).sum())
        self.square += float(np.square(a).sum())
        self.plain += float(a.sum())
        self.count += a.size
        self.different += int((original != pruned).sum())

    def error(self) -> float | None:
        if not self.comparable or not self.count:
            return None
        if self.exact:
            return self.different / self.count
        mean_square = self.square / self.count
        variance = mean_square - (self.plain / self.count) ** 2
        # A constant output has no spread to compare with; below this a variance is rounding.
        scale = variance if variance > 1e-12 * mean_square else mean_square or 1.0
        return sqrt(self.squared_difference / self.count / scale)


def fidelity(
    original: Path,
    pruned: Path,
    split: Split,
    threads: int | None = None,
    on_progress: Callable[[float], None] = lambda fraction: None,
    outputs: Sequence[str] | None = None,
) -> Fidelity:
    """Run both models over a split and compare the outputs of these names, or every one of the graph."""
    sessions = [cpu_session(load_model(path), threads) for path in (original, pruned)]
    names = [output.name for output in sessions[0].get_outputs()] if outputs is None else list(outputs)
    sums = {name: _Sums() for name in names}
    done = 0
    for images, _ in split.batches(batch_size(sessions[0])):
        found = [
            [own_rows(session, np.asarray(output), len(images)) for output in run_images(session, images, names)]
            for session in sessions
        ]
        for name, a, b in zip(names, *found, strict=True):
            sums[name].add(a, b)
        done += len(images)
        on_progress(done / len(split))
    return Fidelity(tuple(OutputError(name, total.error()) for name, total in sums.items()), done)
