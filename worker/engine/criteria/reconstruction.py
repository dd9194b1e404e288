"""Error at the inputs of the next layers (Luo et al., ThiNet, ICCV 2017; He et al., ICCV 2017)."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from worker.engine.criteria.evidence import Evidence
from worker.engine.criteria.observation import observed
from worker.engine.criteria.readers import readers_of, seen_by
from worker.engine.criteria.registry import CRITERIA, Normalised
from worker.engine.criteria.width import Floats, Width
from worker.engine.graph.labels import Labels

_CHUNK_BYTES = 128 * 2**20


class ReconstructionOptions(Normalised):
    """What is sampled, and whether removed channels are judged together."""

    calibration_images: int = Field(default=64, ge=1, le=65_536, description="Training images that are looked at.")
    locations: int = Field(default=10, ge=1, le=1000, description="Output positions per image, drawn by the seed.")
    greedy: bool = Field(
        default=True, description="One channel after another, as in ThiNet: errors that cancel out count as such."
    )


@CRITERIA.register(
    "reconstruction",
    title="Reconstruction error",
    summary="Channels whose absence changes the inputs of the next layers' non-linearities least go.",
    paper="Luo et al., ThiNet, ICCV 2017, arXiv 1707.06342, eq. 6; He et al., Channel Pruning, ICCV 2017, "
    "arXiv 1707.06168",
    cost="a forward pass, and channels^2 x outputs multiplications per layer and sampled position",
    uses=("weights", "activations"),
    data="images",
    exactness="adapted",
    options=ReconstructionOptions,
)
def reconstruction(evidence: Evidence, width: Width, options: ReconstructionOptions) -> list[Floats]:
    """The squared error at the next layers' outputs, relative to their energy, once a unit and those less important
    (greedy), or it alone, are gone."""
    grams = evidence.once("grams", lambda: _grams(evidence, options))
    found = [grams[reader.node] for reader in readers_of(width) if reader.node in grams]
    if not found:
        return []
    total = np.zeros((len(width), len(width)))
    for labels, gram in found:
        energy = max(float(gram.sum()), 1e-30)
        total += width.per_unit(labels, width.per_unit(labels, gram).T) / energy
    return [_greedy(total) if options.greedy else np.diagonal(total).copy()]


def _greedy(gram: Floats) -> Floats:
    """Errors as units go one after another, the cheapest next: score = the largest error up to its removal."""
    units = len(gram)
    scores, left, cross, error, worst = np.empty(units), np.ones(units, dtype=bool), np.zeros(units), 0.0, 0.0
    own = np.diagonal(gram)
    for _ in range(units):
        after = np.where(left, error + own + 2 * cross, np.inf)
        unit = int(np.argmin(after))
        error = float(after[unit])
        worst = max(worst, error)
        # Ties keep the order of removal: a score must not fall behind those that went before.
        scores[unit] = worst = np.nextafter(worst, np.inf)
        left[unit] = False
        cross += gram[:, unit]
    return scores


def _grams(evidence: Evidence, options: ReconstructionOptions) -> dict[int, tuple[Labels, Floats]]:
    """Node -> labels of its input channels, and the products of what they add to its outputs, (channels, channels),
    summed over outputs and sampled positions."""
    analysis = evidence.analysis
    readers = {reader.node: reader for width in evidence.widths for reader in readers_of(width)}
    calibration = evidence.images(options.calibration_images)
    found: dict[int, tuple[Labels, Floats]] = {}
    if not readers:
        return found
    for arrays, numbers in observed(analysis, [reader.tensor for reader in readers.values()], calibration):
        for node, reader in readers.items():
            rng = np.random.default_rng([evidence.seed, node, int(numbers[0])])
            patches = seen_by(analysis.graph.nodes[node], arrays[reader.tensor], reader, options.locations, rng)
            gram = _gram(patches, reader.weight)
            found[node] = (reader.labels, found[node][1] + gram if node in found else gram)
    return found


def _gram(patches: np.ndarray, weight: np.ndarray) -> Floats:
    """(samples, C, taps) and (outputs, C, taps) -> (C, C)."""
    outputs, channels, _ = weight.shape
    total = np.zeros((channels, channels))
    step = max(1, _CHUNK_BYTES // (8 * outputs * channels))
    by_channel = weight.astype(np.float64).transpose(1, 2, 0)  # (C, taps, outputs)
    for start in range(0, len(patches), step):
        part = patches[start : start + step].astype(np.float64).transpose(1, 0, 2)  # (C, samples, taps)
        added = np.matmul(part, by_channel).reshape(channels, -1)  # (C, samples * outputs)
        total += added @ added.T
    return total
