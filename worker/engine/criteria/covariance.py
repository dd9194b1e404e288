"""How what a layer multiplies with its weights varies over sampled positions of calibration images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from worker.engine.criteria.evidence import Evidence
from worker.engine.criteria.observation import observed
from worker.engine.criteria.readers import Reader, readers_of, seen_by
from worker.engine.criteria.width import Floats, Width

MAX_INPUTS = 6000
"""Layers that sum over more are looked at channel by channel: whole covariances would take gigabytes."""
_PORTION_BYTES = 2**30


class Covariances:
    """Of all readers of a model's widths, asked for width by width: as many at once as fit in a portion of memory, with
    a pass over the images for each portion."""

    def __init__(self, evidence: Evidence, images: int, locations: int) -> None:
        self._evidence, self._images, self._locations = evidence, images, locations
        self._portions = list(_portions([readers_of(width) for width in evidence.widths]))
        self._seen: dict[int, Floats] = {}

    def of(self, width: Width) -> list[tuple[Reader, Floats]]:
        """Each reader of the width and its covariance: (C * taps, the same), or that of each channel by itself, (C,
        taps, taps), of a layer that sums over more than MAX_INPUTS."""
        readers = readers_of(width)
        if any(reader.node not in self._seen for reader in readers):
            wanted = {reader.node for reader in readers}
            portion = next(part for part in self._portions if wanted <= {reader.node for reader in part})
            self._seen = {}  # the last portion makes room first
            self._seen = self._observed(portion)
        return [(reader, self._seen[reader.node]) for reader in readers]

    def _observed(self, readers: Sequence[Reader]) -> dict[int, Floats]:
        analysis = self._evidence.analysis
        sums = {reader.node: _Sums.over(reader) for reader in readers}
        images = self._evidence.images(self._images)
        for arrays, numbers in observed(analysis, [reader.tensor for reader in readers], images):
            for reader in readers:
                rng = np.random.default_rng([self._evidence.seed, reader.node, int(numbers[0])])
                seen = seen_by(analysis.graph.nodes[reader.node], arrays[reader.tensor], reader, self._locations, rng)
                sums[reader.node].add(seen.astype(np.float32))
        return {node: each.covariance() for node, each in sums.items()}


def _portions(widths: Sequence[Sequence[Reader]]) -> Iterator[list[Reader]]:
    """The readers of successive widths; those of one width are never taken apart."""
    portion: dict[int, Reader] = {}
    for readers in widths:
        wider = portion | {reader.node: reader for reader in readers}
        if portion and sum(_Sums.bytes_over(reader) for reader in wider.values()) > _PORTION_BYTES:
            yield list(portion.values())
            wider = {reader.node: reader for reader in readers}
        portion = wider
    yield list(portion.values())


@dataclass
class _Sums:
    """Sums over rows of x, and of the products of its values: all pairs of them, or those of each channel."""

    rows: int
    total: Floats
    products: Floats

    @classmethod
    def over(cls, reader: Reader) -> _Sums:
        _, channels, taps = reader.weight.shape
        shape = (channels * taps,) * 2 if reader.inputs <= MAX_INPUTS else (channels, taps, taps)
        return cls(0, np.zeros((channels, taps)), np.zeros(shape))

    @staticmethod
    def bytes_over(reader: Reader) -> int:
        return 8 * reader.inputs * (reader.inputs if reader.inputs <= MAX_INPUTS else reader.weight.shape[2])

    def add(self, seen: np.ndarray) -> None:
        """(rows, C, taps) float32."""
        self.rows += len(seen)
        self.total += seen.sum(axis=0, dtype=np.float64)
        if self.products.ndim == 2:
            flat = seen.reshape(len(seen), -1)
            self.products += flat.T @ flat
        else:
            by_channel = seen.transpose(1, 2, 0)  # (C, taps, rows)
            self.products += by_channel @ by_channel.transpose(0, 2, 1)

    def covariance(self) -> Floats:
        mean = self.total / self.rows
        if self.products.ndim == 2:
            return self.products / self.rows - np.outer(mean, mean)
        return self.products / self.rows - mean[:, :, None] * mean[:, None, :]
