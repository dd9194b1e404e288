"""How what a layer multiplies with its weights varies over sampled positions of calibration images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from worker.engine.criteria.evidence import Evidence
from worker.engine.criteria.observation import observed
from worker.engine.criteria.readers import Reader, readers_of, seen_by
from worker.engine.criteria.width import Floats, Width
from worker.engine.errors import EngineError
from worker.engine.graph.onnx_graph import node_label

MAX_INPUTS = 6000
"""Layers that sum over more are looked at channel by channel: whole covariances would take gigabytes."""
_PORTION_BYTES = 2**30
_ROUNDING = 1e-12
"""Share of the inputs' squares: what varies less does so by the rounding of float32."""
_ROWS = 512
"""Rows that are multiplied at once: few images fit in a batch of large activations."""


@dataclass(frozen=True)
class Observed:
    """A reader, and the covariance of what it multiplies with its weights: (C * taps, the same), or that of each
    channel by itself, (C, taps, taps), of a layer that sums over more than MAX_INPUTS. `varies` is False where its
    inputs differ by rounding alone."""

    reader: Reader
    covariance: Floats
    varies: bool


class Covariances:
    """Of all readers of a model's widths, asked for width by width: as many at once as fit in a portion of memory, with
    a pass over the images for each portion."""

    def __init__(self, evidence: Evidence, images: int, locations: int) -> None:
        self._evidence, self._images, self._locations = evidence, images, locations
        self._portions = list(_portions(evidence.widths))
        self._seen: dict[int, Observed] = {}

    def of(self, width: Width) -> list[Observed]:
        """What the readers of the width see. Raises EngineError where that is no number."""
        nodes = [reader.node for reader in readers_of(width)]
        if any(node not in self._seen for node in nodes):
            portion = next(part for part in self._portions if any(each is width for each in part))
            self._seen = {}  # the last portion makes room first
            self._seen = self._observed({reader.node: reader for each in portion for reader in readers_of(each)})
        return [self._seen[node] for node in nodes]

    def _observed(self, readers: Mapping[int, Reader]) -> dict[int, Observed]:
        analysis = self._evidence.analysis
        sums = {node: _Sums(reader) for node, reader in readers.items()}
        images = self._evidence.images(self._images)
        for arrays, numbers in observed(analysis, [reader.tensor for reader in readers.values()], images):
            for node, reader in readers.items():
                rng = np.random.default_rng([self._evidence.seed, node, int(numbers[0])])
                seen = seen_by(analysis.graph.nodes[node], arrays[reader.tensor], reader, self._locations, rng)
                sums[node].add(seen[np.isfinite(seen).all(axis=(1, 2))].astype(np.float32))
        for node, found in sums.items():
            if not found.rows:
                raise EngineError(
                    "not_finite",
                    f"Of the images node '{node_label(analysis.graph.nodes[node])}' reads nothing but infinite values.",
                    "Check data.mean and data.std, or choose a criterion that needs no images, such as l2.",
                )
        return {node: sums[node].observed(reader) for node, reader in readers.items()}


def _portions(widths: Sequence[Width]) -> Iterator[list[Width]]:
    """Successive widths whose readers are observed together."""
    portion: list[Width] = []
    sizes: dict[int, int] = {}
    for width in widths:
        own = {reader.node: _Sums.bytes_over(reader) for reader in readers_of(width)}
        if portion and sum((sizes | own).values()) > _PORTION_BYTES:
            yield portion
            portion, sizes = [], {}
        portion.append(width)
        sizes |= own
    yield portion


class _Sums:
    """Sums over rows of x, and of the products of its values: all pairs of them, or those of each channel."""

    def __init__(self, reader: Reader) -> None:
        _, channels, taps = reader.weight.shape
        shape = (channels * taps,) * 2 if reader.inputs <= MAX_INPUTS else (channels, taps, taps)
        self._rows, self._total, self._products = 0, np.zeros((channels, taps)), np.zeros(shape)
        self._waiting: list[np.ndarray] = []
        self._origin: np.ndarray | None = None

    @staticmethod
    def bytes_over(reader: Reader) -> int:
        return 8 * reader.inputs * (reader.inputs if reader.inputs <= MAX_INPUTS else reader.weight.shape[2])

    @property
    def rows(self) -> int:
        return self._rows + sum(map(len, self._waiting))

    def add(self, seen: np.ndarray) -> None:
        """(rows, C, taps) float32."""
        if len(seen):
            self._waiting.append(seen)
        if sum(map(len, self._waiting)) >= _ROWS:
            self._multiply()

    def _multiply(self) -> None:
        if not self._waiting:
            return
        rows = np.concatenate(self._waiting)
        self._waiting = []
        # Where values hardly vary around a large mean, their squares would leave nothing of it in float32.
        self._origin = rows.mean(axis=0) if self._origin is None else self._origin
        rows -= self._origin
        self._rows += len(rows)
        self._total += rows.sum(axis=0, dtype=np.float64)
        if self._products.ndim == 2:
            flat = rows.reshape(len(rows), -1)
            self._products += flat.T @ flat
        else:
            by_channel = rows.transpose(1, 2, 0)  # (C, taps, rows)
            self._products += by_channel @ by_channel.transpose(0, 2, 1)

    def observed(self, reader: Reader) -> Observed:
        """Of all rows; this ends the sums."""
        self._multiply()
        mean, second = self._total / self._rows, self._products
        second /= self._rows
        second -= np.outer(mean, mean) if second.ndim == 2 else mean[:, :, None] * mean[:, None, :]
        variance = np.diagonal(second, axis1=-2, axis2=-1).sum()
        values = np.square(mean + (0.0 if self._origin is None else self._origin)).sum() + variance
        return Observed(reader, second, bool(variance > _ROUNDING * values))
