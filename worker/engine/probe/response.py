"""How the outputs of a network answer to silenced channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from worker.engine.graph.analysis import Analysis
from worker.engine.measure.classifier import find_head, predicted_classes
from worker.engine.probe.images import Images
from worker.engine.probe.masked_form import MaskedForm
from worker.engine.probe.replay import Replay
from worker.engine.surgery import Plan

_HELD_BYTES = 2**30
_LARGEST_BATCH = 64


@dataclass(frozen=True)
class Response:
    """change: ||pruned - original|| / ||original||, the root mean square over all outputs. top1: None if unlabelled."""

    change: float
    top1: float | None


@dataclass
class _Tally:
    difference: np.ndarray  # per output, summed squares
    right: int = 0


class Probe:
    """The original and its images; each plan is answered by masks, without BN re-estimation."""

    def __init__(self, analysis: Analysis, images: Images, held_bytes: int = _HELD_BYTES) -> None:
        self._masked = MaskedForm(analysis)
        self._images = images
        self._head = find_head(self._masked.form.model)
        self._held_bytes = held_bytes

    def original(self) -> Response:
        """The response to no cut at all."""
        return self.responses([Plan({})])[0]

    def responses(
        self, plans: Sequence[Plan], on_progress: Callable[[float], None] = lambda share: None
    ) -> list[Response]:
        """One per plan. Each batch of images is gone through once for all plans."""
        tallies: list[_Tally] | None = None
        energy, done, size = np.zeros(0), 0, self._batch_size()
        batches = list(self._images.batches(size))
        for inputs, labels in batches:
            self._masked.silence(None)
            replay = Replay(self._masked.module, inputs, self._masked.masks)
            reference = [_numbers(value) for value in replay.outputs]
            if tallies is None:
                energy = np.zeros(len(reference))
                tallies = [_Tally(np.zeros(len(reference))) for _ in plans]
            energy += [float(np.square(value).sum()) for value in reference]
            for plan, tally in zip(plans, tallies, strict=True):
                found = [_numbers(value) for value in replay.again(self._masked.silence(plan))]
                tally.difference += [float(np.square(a - b).sum()) for a, b in zip(found, reference, strict=True)]
                if labels is not None:
                    tally.right += self._right(found[self._head.index], labels)
                done += 1
                on_progress(done / (len(plans) * len(batches)))
        return [self._response(tally, energy) for tally in tallies or []]

    def _batch_size(self) -> int:
        """As many images as may be held with all their activations."""
        self._masked.silence(None)
        inputs, _ = next(self._images.batches(1))
        replay = Replay(self._masked.module, inputs, self._masked.masks)
        per_image = max(replay.held_bytes // max(len(inputs[0]), 1), 1) if inputs[0].ndim else replay.held_bytes
        return int(np.clip(self._held_bytes // per_image, 1, _LARGEST_BATCH))

    def _right(self, output: np.ndarray, labels: np.ndarray) -> int:
        scores = self._head.scores(output, self._images.classes)[: len(labels)]
        return int((predicted_classes(self._head, scores) == labels).sum())

    def _response(self, tally: _Tally, energy: np.ndarray) -> Response:
        shares = tally.difference / np.maximum(energy, np.finfo(np.float64).tiny)
        top1 = None if self._images.labels is None else tally.right / len(self._images)
        return Response(float(np.sqrt(shares.mean())), top1)


def _numbers(output: torch.Tensor) -> np.ndarray:
    return output.detach().cpu().double().numpy()
