"""How the outputs of a network answer to silenced channels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from threading import Lock

import numpy as np
import torch

from worker.engine.errors import EngineError
from worker.engine.graph.analysis import Analysis
from worker.engine.measure.classifier import find_head, predicted_classes
from worker.engine.probe.images import Images
from worker.engine.probe.masked_form import MaskedForm
from worker.engine.probe.replay import Replay
from worker.engine.surgery import Plan

_HELD_BYTES = 2**30
_LARGEST_BATCH = 64
_MOST_LANES = 8


@dataclass(frozen=True)
class Response:
    """change: ||pruned - original|| / ||original||, the root mean square over all outputs; numbers that are none after
    the cut, as behind a division by what went, count as zeros: as lost. top1: None if unlabelled."""

    change: float
    top1: float | None


@dataclass
class _Tally:
    difference: np.ndarray  # per output, summed squares
    right: int = 0


class Probe:
    """The original and its images; each plan is answered by masks, without BN re-estimation. With `means`, a channel
    that goes leaves its mean over the images behind, as the biases of its readers can make up for it; without, nothing.

    Plans are answered side by side, by as many threads as torch has, each with a network of its own: operations as
    small as these gain little from threads of their own, and wait for each other where cores are shared.
    """

    def __init__(self, analysis: Analysis, images: Images, held_bytes: int = _HELD_BYTES, means: bool = False) -> None:
        lanes = max(min(torch.get_num_threads(), _MOST_LANES), 1)
        first = MaskedForm(analysis)
        self._forms = [first, *(MaskedForm(analysis, weights_of=first) for _ in range(lanes - 1))]
        self._images = images
        self._head = find_head(first.form.model, images.classes or None)
        self._held_bytes = held_bytes // lanes
        self._means = means

    def original(self) -> Response:
        """The response to no cut at all."""
        return self.responses([Plan({})])[0]

    def responses(
        self, plans: Sequence[Plan], on_progress: Callable[[float], None] = lambda share: None
    ) -> list[Response]:
        """One per plan. Each batch of images is gone through once for all plans. Raises EngineError where the original
        gives no numbers."""
        if not plans:
            return []
        size, filling = self._batch_size, self._filling if self._means else {}
        told = _Progress(len(plans) * self._images.count(size), on_progress)
        with _one_thread_per_operation():
            found = [self._batch(plans, *batch, filling, told) for batch in self._images.batches(size)]
        energy = np.sum([energy for _, energy in found], axis=0)
        if not np.isfinite(energy).all():
            raise EngineError(
                "not_finite",
                "An output of the model is NaN or infinite, so that changes of it have no size.",
                "Check that the original gives numbers in onnxruntime, on the job's images or on random ones.",
            )
        answers = []
        for number in range(len(plans)):
            parts = [tallies[number] for tallies, _ in found]
            answers.append(self._response(parts, energy))
        return answers

    def _batch(
        self,
        plans: Sequence[Plan],
        inputs: tuple[torch.Tensor, ...],
        labels: np.ndarray | None,
        filling: Mapping[str, torch.Tensor],
        told: _Progress,
    ) -> tuple[list[_Tally], np.ndarray]:
        """A tally per plan, and the energy of each output of the original."""
        tallies: list[_Tally | None] = [None] * len(plans)
        energies: list[np.ndarray] = []

        def lane(start: int) -> None:
            form = self._forms[start]
            form.silence(None)
            replay = Replay(form.module, inputs, form.masks, filling)
            reference = [_numbers(value) for value in replay.outputs]
            energies.append(np.array([float(np.square(value).sum()) for value in reference]))
            for number in range(start, len(plans), len(self._forms)):
                outputs = [_numbers(value) for value in replay.again(form.silence(plans[number]))]
                found = [np.nan_to_num(value, posinf=0.0, neginf=0.0) for value in outputs]
                squares = [float(np.square(a - b).sum()) for a, b in zip(found, reference, strict=True)]
                right = 0 if labels is None else self._right(outputs[self._head.index], labels, len(inputs[0]))
                tallies[number] = _Tally(np.array(squares), right)
                told.one_more()

        lanes = range(min(len(self._forms), len(plans)))
        with ThreadPoolExecutor(len(lanes)) as pool:
            list(pool.map(lane, lanes))
        return [tally for tally in tallies if tally is not None], energies[0]

    @cached_property
    def _filling(self) -> dict[str, torch.Tensor]:
        """By mask, the means over the images of what it multiplies."""
        form, count = self._forms[0], 0
        sums: dict[str, torch.Tensor] = {}
        form.silence(None)
        for inputs, _ in self._images.batches(self._batch_size):
            images = len(inputs[0]) if inputs[0].ndim else 1
            for path, mean in Replay(form.module, inputs, form.masks).means().items():
                sums[path] = images * mean + sums.get(path, 0.0)
            count += images
        return {path: total / count for path, total in sums.items()}

    @cached_property
    def _batch_size(self) -> int:
        """As many images as may be held with all their activations."""
        form = self._forms[0]
        form.silence(None)
        inputs, _ = next(self._images.batches(1))
        replay = Replay(form.module, inputs, form.masks)
        per_image = max(replay.held_bytes // max(len(inputs[0]), 1), 1) if inputs[0].ndim else replay.held_bytes
        return int(np.clip(self._held_bytes // per_image, 1, _LARGEST_BATCH))

    def _right(self, output: np.ndarray, labels: np.ndarray, images: int) -> int:
        scores = self._head.scores(output, self._images.classes, images)[: len(labels)]
        return int((predicted_classes(self._head, scores) == labels).sum())

    def _response(self, parts: Sequence[_Tally], energy: np.ndarray) -> Response:
        difference = np.sum([part.difference for part in parts], axis=0)
        shares = difference / np.where(energy > 0, energy, 1.0)  # an output that is zero on all images has no scale
        right = sum(part.right for part in parts)
        top1 = None if self._images.labels is None else right / len(self._images)
        return Response(float(np.sqrt(shares.mean())), top1)


class _Progress:
    """Counts what several threads have done."""

    def __init__(self, total: int, on_progress: Callable[[float], None]) -> None:
        self._total, self._done, self._tell, self._lock = total, 0, on_progress, Lock()

    def one_more(self) -> None:
        with self._lock:
            self._done += 1
            self._tell(self._done / self._total)


@contextmanager
def _one_thread_per_operation() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _numbers(output: torch.Tensor) -> np.ndarray:
    return output.detach().cpu().double().numpy()
