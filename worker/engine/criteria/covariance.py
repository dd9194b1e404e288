"""How what a layer multiplies with its weights varies over sampled positions of calibration images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from worker.engine.criteria.evidence import Evidence
from worker.engine.criteria.observation import observed
from worker.engine.criteria.readers import Reader, readers_of, seen_by
from worker.engine.criteria.width import Floats, Width

MAX_INPUTS = 6000
"""Layers that sum over more are looked at channel by channel: whole covariances would take gigabytes."""
_PORTION_BYTES = 2**30
_ROWS = 512
"""Rows that are multiplied at once: few images fit in a batch of large activations."""


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
        sums = {reader.node: _Sums(reader) for reader in readers}
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

    def add(self, seen: np.ndarray) -> None:
        """(rows, C, taps) float32."""
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

    def covariance(self) -> Floats:
        """Of all rows; this ends the sums."""
        self._multiply()
        mean, second = self._total / self._rows, self._products
        second /= self._rows
        second -= np.outer(mean, mean) if second.ndim == 2 else mean[:, :, None] * mean[:, None, :]
        return second
