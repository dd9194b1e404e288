"""Training after the cut, on labels or on images alone: a validation split chooses the epoch, and the weights are left
in the torch form."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch

from worker.engine.data import Augmentation, Dataset, Split
from worker.engine.errors import EngineError
from worker.engine.masks.weights import Masks
from worker.engine.recovery.arithmetic import BFLOAT16, CANDIDATES, FLOAT32, MIN_STEPS, Arithmetic, fastest, suited
from worker.engine.recovery.checkpoint import (
    Checkpoints,
    Interrupted,
    State,
    prefixed,
    without_prefix,
)
from worker.engine.recovery.descent import Descent, nothing_to_train
from worker.engine.recovery.frozen_masks import FrozenMasks
from worker.engine.recovery.gradient_clipping import GradientClipping
from worker.engine.recovery.layer_weights import decayed
from worker.engine.recovery.objective import objective_of
from worker.engine.recovery.registry import RECOVERIES
from worker.engine.recovery.selective_decay import SelectiveDecay
from worker.engine.recovery.team import ALONE, Team
from worker.engine.recovery.training_curve import Epoch, Training
from worker.engine.recovery.training_options import FinetuneOptions, TrainingOptions
from worker.engine.torch_form import TorchForm

_NO_MASKS: Masks = {}
_RETREATS = 3
_EXPLODED = 100
"""Times the validation loss before the training: a loss that is larger is as lost as one that is no number."""
_LEAST_LOSS, _LEAST_LOSS_WITH_DECAY = 0.01, 1.0
"""In place of a smaller one: weights that a decay makes vanish may cost what they gave, and that is no divergence."""
_SINGLE_VALUE = "Expected more than 1 value per channel"
"""What torch says where a norm would take the statistics of one value: it has no type of its own."""


_Judge = Callable[[tuple[torch.Tensor, ...], torch.Tensor, torch.Tensor], tuple[torch.Tensor, int | None]]
"""Outputs, images and labels of a batch -> its mean loss, and how many predictions are right."""


@dataclass
class _Part:
    """How far the epoch in progress is, in whole batches."""

    learning_rate: float
    batches: int = 0
    loss: float = 0.0  # summed over the samples
    samples: int = 0
    seconds: float = 0.0


@RECOVERIES.register(
    "finetuning",
    title="Finetuning",
    summary="The pruned network is trained on the dataset; a validation split of its images chooses the epoch.",
    paper="Han et al., Learning both Weights and Connections for Efficient Neural Networks, NeurIPS 2015, "
    "arXiv 1506.02626",
    cost="epochs x training images x a forward and a backward pass",
    uses=("gradients",),
    data="images",
    exactness="adapted",
    options=TrainingOptions,
    asked_for_by="finetuning.epochs",
)
def finetune(
    form: TorchForm,
    dataset: Dataset,
    options: FinetuneOptions | None = None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    on_progress: Callable[[float], None] = lambda fraction: None,
    masks: Masks = _NO_MASKS,
    checkpoints: Checkpoints | None = None,
    teacher: TorchForm | None = None,
    decay: SelectiveDecay | None = None,
    team: Team = ALONE,
) -> Training:
    """Train the form on the dataset's training split and leave it with the weights of the epoch that did best on the
    validation split (accuracy, then loss), epoch 0 included; on as many training images besides, where epoch 0 would
    win and comes from a network that was trained on the validation images. Reproducible by seed on the CPU, where
    `precision` is not left to a trial. Weights named in `masks` stay exactly zero where their mask is False.

    With `checkpoints`, a training that was cut off goes on at the batch of its last checkpoint and ends with the
    weights that it would have had without the cut, bit by bit on the CPU; raises Interrupted when told to stop.

    `teacher` is the form of the original; it is needed where `options.distillation` is a number above 0, and where the
    dataset has no labels: all outputs are then trained to be the original's. With labels, those beside the class scores
    are; without a teacher they become whatever training on the scores makes of them, and "auto" distils nothing.

    Where the loss leaves all bounds, the epoch begins anew with the best weights so far and a tenth of the learning
    rate, three times at most.

    With `decay` the training prepares a cut: the learning rate stays, and so do the last epoch's weights.

    The processes of a `team` call this with the same arguments, and all end with the same weights: but for rounding,
    and for what Dropout draws, those of one process. The first one writes the checkpoints that all go on from, and its
    `told_to_stop` stops all.

    Raises EngineError where the model's outputs do not fit the labels, where the loss leaves all bounds whatever the
    learning rate, and where a batch of one image is too small for a norm.
    """
    options = options or FinetuneOptions()
    device = _device(options.device)
    form.module.to(device)
    try:
        run = _Run(form, dataset, options, device, masks, checkpoints, teacher, decay, team)
        return run.train(on_epoch, on_progress)
    finally:
        FLOAT32.prepare(form.module)
        form.module.eval().cpu()


class _Run:
    """The state of one training: network up to what is learnt, optimiser, schedule, curve, best weights."""

    def __init__(
        self,
        form: TorchForm,
        dataset: Dataset,
        options: FinetuneOptions,
        device: torch.device,
        masks: Masks,
        checkpoints: Checkpoints | None,
        teacher: TorchForm | None,
        decay: SelectiveDecay | None,
        team: Team,
    ) -> None:
        self.decay, self.team = decay, team
        self.options, self.dataset, self.device, self.checkpoints = options, dataset, device, checkpoints
        self.objective = objective_of(form, dataset, options, device, teacher)
        self.form, self.network = form, form.on_batches(team.joined(form.up_to(*self.objective.values)))
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.steps_per_epoch = math.ceil(len(dataset.train) / options.batch_size)
        steps = options.epochs * self.steps_per_epoch
        self.descent = Descent(parameters, options, steps, decayed=decayed(form), constant=decay is not None)
        self.augmentation = Augmentation(options.crop_padding, options.horizontal_flip)
        self.clipping = GradientClipping(form, options.gradient_clipping)
        self.frozen = FrozenMasks(form, masks)
        self.frozen.apply()
        self.start = self._weights()

    def train(self, on_epoch: Callable[[Epoch], None], on_progress: Callable[[float], None]) -> Training:
        self.rows: list[Epoch] = []
        self.part = _Part(self.descent.rate)
        resumed = self._resume()
        if self.team.from_first(self.descent.done) != self.descent.done:
            raise RuntimeError("the processes of a training went on from different checkpoints")
        if not resumed:
            self.arithmetic = self._chosen_arithmetic()
            self.arithmetic.prepare(self.network)
            self.rows = [self._first_row()]
            self.best, self.weights = self.rows[0], self.start
            on_epoch(self.rows[0])
        self.stepping = self.team.stepping(self.network)
        for number in range(len(self.rows), self.options.epochs + 1):
            row = self._converging_epoch(number, on_progress)
            self.rows.append(row)
            if self.decay is not None or self.best.epoch == 0 or row.merit > self.best.merit:
                self.best, self.weights = row, self._weights()
            self.part = _Part(self.descent.rate)
            on_epoch(row)
        judged_on_both = self._settle()
        samples = len(self.dataset.train), len(self.dataset.validation)
        curve = tuple(self.rows)
        return Training(
            _device_name(self.device),
            *samples,
            self.best.epoch,
            curve,
            self.arithmetic,
            self.team.processes,
            self.descent.retreats,
            judged_on_both,
        )

    def _settle(self) -> bool:
        """Leave the network with the weights to keep, of the best epoch or from before the training; whether that took
        training images.

        Where the start gets more of the validation images right than of the test images, and not by chance, it comes
        from a network that was trained on them: on these alone, what has been trained on others since looks worse than
        it is. Then the two are compared on as many training images besides, which both know.
        """
        first = self.rows[0]
        if self.best.epoch > 0 and (self.decay is not None or self.best.merit > first.merit):
            self.network.load_state_dict(self.weights)
            return False
        self.network.load_state_dict(self.start)
        if self.best.epoch == 0 or not self._knows_the_validation(first):
            self.best = first
            return False
        before = self._on_training_images()
        self.network.load_state_dict(self.weights)
        if self._on_training_images() + (self.best.validation_top1 or 0) <= before + (first.validation_top1 or 0):
            self.network.load_state_dict(self.start)
            self.best = first
        return True

    def _knows_the_validation(self, first: Epoch) -> bool:
        """Of the network before the training, whose weights are in place."""
        if first.validation_top1 is None:
            return False
        _, on_test = self._validate(self.dataset.test)
        counts = len(self.dataset.validation), len(self.dataset.test)
        return beyond_chance(first.validation_top1, on_test or 0.0, *counts)

    def _on_training_images(self) -> float:
        """The accuracy on as many of them as there are validation images."""
        _, top1 = self._judged(self._some_training_images(), self.objective.judge)
        return top1 or 0.0

    def _some_training_images(self) -> Split:
        return self.dataset.train.drawn(len(self.dataset.validation), np.random.default_rng([self.options.seed, 0]))

    def _chosen_arithmetic(self) -> Arithmetic:
        if self.options.precision != "auto":
            return BFLOAT16 if self.options.precision == "bfloat16" else FLOAT32
        if self.descent.steps < MIN_STEPS:
            return FLOAT32
        images, labels = next(self.dataset.train.batches(self.options.batch_size, part=self.team.rows))
        self.network.train()

        def step(arithmetic: Arithmetic) -> None:
            inputs, truth = self._on_device(images, labels)
            self._forward(self.network, arithmetic, inputs, truth).backward()  # type: ignore[no-untyped-call]

        found = fastest(self.network, step, self.device, suited(self.device))
        return CANDIDATES[self.team.from_first(CANDIDATES.index(found))]

    def _first_row(self) -> Epoch:
        """The untrained model, its training loss taken on as many samples as are held out for validation."""
        start = time.monotonic()
        loss, top1 = self._validate(self.dataset.validation)
        some = self._some_training_images()
        train_loss, _ = self._judged(some, lambda *batch: (self.objective.loss(*batch), None))
        return Epoch(0, 0.0, train_loss, loss, top1, time.monotonic() - start)

    def _converging_epoch(self, number: int, on_progress: Callable[[float], None]) -> Epoch:
        """An epoch, begun anew from the best weights at a tenth of the learning rate where it diverges."""
        while True:
            try:
                return self._epoch(number, on_progress)
            except _Diverged:
                if self.descent.retreats == _RETREATS or not math.isfinite(self.best.validation_loss):
                    raise
                self._retreat(number)

    def _diverged(self, number: int) -> _Diverged:
        return _Diverged(number, "learning rate" if self.decay is None else "learning rate, or regularisation.last")

    def _retreat(self, number: int) -> None:
        better = self.decay is not None or self.best.merit > self.rows[0].merit
        self.network.load_state_dict(self.weights if better else self.start)
        self.frozen.apply()
        self.descent.retreat((number - 1) * self.steps_per_epoch)
        self.part = _Part(self.descent.rate)

    def _epoch(self, number: int, on_progress: Callable[[float], None]) -> Epoch:
        """What is left of one pass over the training split, then the validation."""
        start, before = time.monotonic(), self.part.seconds
        rng = np.random.default_rng([self.options.seed, number])
        batches = self.dataset.train.batches(
            self.options.batch_size,
            rng=rng,
            augmentation=self.augmentation,
            first=self.part.batches,
            part=self.team.rows,
        )
        for images, labels in batches:
            self._train_batch(number, images, labels)
            self.part.seconds = before + time.monotonic() - start
            self._checkpoint()
            on_progress(self.descent.progress)
        loss, top1 = self._validate(self.dataset.validation)
        least = _LEAST_LOSS if self.decay is None else _LEAST_LOSS_WITH_DECAY
        if not loss <= _EXPLODED * max(self.rows[0].validation_loss, least):
            raise self._diverged(number)
        seconds = before + time.monotonic() - start
        return Epoch(number, self.part.learning_rate, self.part.loss / self.part.samples, loss, top1, seconds)

    def _train_batch(self, number: int, images: np.ndarray, labels: np.ndarray) -> None:
        # For Dropout: each batch is reproducible by itself, so that a training can go on at any of them.
        apart = [self.team.rank] if self.team.rank else []
        torch.manual_seed(_seed(self.options.seed, number, self.part.batches, *apart))
        self.network.train()
        size = self._size(self.dataset.train, self.part.batches * self.options.batch_size)
        # Batch statistics need more than one sample: what is left over at the end is passed over if it is but one.
        if size > 1 or self.options.batch_size == 1 or self.part.samples == 0:
            loss = self._step(images, labels, size)
            if not math.isfinite(loss):
                raise self._diverged(number)
            self.part.loss += loss
            self.part.samples += size
        self.descent.advance()
        self.part.batches += 1

    def _step(self, images: np.ndarray, labels: np.ndarray, size: int) -> float:
        """The loss, summed over all samples of a batch of that size."""
        self.descent.optimizer.zero_grad(set_to_none=True)
        inputs, truth = self._on_device(images, labels)
        loss = self._forward(self.stepping, self.arithmetic, inputs, truth)
        if not loss.requires_grad:
            raise nothing_to_train()
        counted = len(labels) * self.team.weight(size)
        (loss * (counted * self.team.processes / size)).backward()  # type: ignore[no-untyped-call]
        self.clipping.apply()
        if self.decay is not None:  # after it: a decay that was clipped would shrink nothing
            self.decay.add_to_gradients(self.form.module, self.descent.progress)
        self.descent.optimizer.step()
        self.frozen.apply()
        (total,) = self.team.total(loss.item() * counted)
        return total

    def _forward(
        self, network: torch.nn.Module, arithmetic: Arithmetic, inputs: torch.Tensor, truth: torch.Tensor
    ) -> torch.Tensor:
        inputs = arithmetic.images(inputs)
        try:
            with arithmetic.context(self.device):
                return self.objective.loss(network(inputs), inputs, truth)
        except ValueError as error:
            if _SINGLE_VALUE in str(error):
                raise _batch_too_small() from error
            raise

    def _validate(self, split: Split) -> tuple[float, float | None]:
        """Mean loss, and accuracy where there are labels."""
        return self._judged(split, self.objective.judge)

    @torch.no_grad()
    def _judged(self, split: Split, judge: _Judge) -> tuple[float, float | None]:
        self.network.eval()
        loss, right, count = 0.0, 0.0, 0
        for images, labels in split.batches(self.options.batch_size, part=self.team.rows):
            self._stop_if_told()
            inputs, truth = self._on_device(images, labels)
            inputs = self.arithmetic.images(inputs)
            found, hits = judge(self.network(inputs), inputs, truth)
            size = self._size(split, count)
            loss += found.item() * len(labels) * self.team.weight(size)
            right += (hits or 0) * self.team.weight(size)
            count += size
        loss, right = self.team.total(loss, right)
        return loss / count, right / count if self.dataset.labelled else None

    def _size(self, split: Split, start: int) -> int:
        """Samples in the batch that begins there, all parts of it."""
        return min(self.options.batch_size, len(split) - start)

    def _on_device(self, images: np.ndarray, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(images).to(self.device), torch.from_numpy(labels).to(self.device)

    def _checkpoint(self) -> None:
        """Between two batches: leave a checkpoint if it is time for one."""
        self._stop_if_told()
        if self.checkpoints is not None and self.checkpoints.due:
            self._save(self.checkpoints)

    def _stop_if_told(self) -> None:
        told = self.checkpoints is not None and self.checkpoints.told_to_stop()
        if not self.team.from_first(told):
            return
        if self.rows and self.checkpoints is not None:
            self._save(self.checkpoints)
        raise Interrupted(f"stopped after {self.descent.done} of {self.descent.steps} batches")

    def _save(self, checkpoints: Checkpoints) -> None:
        """All processes have the same state."""
        if self.team.rank == 0:
            checkpoints.save(self._state())

    def _state(self) -> State:
        descent = self.descent.state()
        tensors = (
            prefixed("network.", self.network.state_dict())
            | prefixed("best.", self.weights)
            | prefixed("optimizer.", descent.tensors)
        )
        values = {
            "options": self.options.model_dump(),
            "rows": [asdict(row) for row in self.rows],
            "best": self.best.epoch,
            "part": asdict(self.part),
            "arithmetic": asdict(self.arithmetic),
            **descent.values,
        }
        return State(tensors, values)

    def _resume(self) -> bool:
        """Go back to where the checkpoint was left; false where there is none of this training."""
        state = self.checkpoints.load() if self.checkpoints is not None else None
        if state is None or not self._fits(state):
            return False
        self.network.load_state_dict(without_prefix("network.", state.tensors))
        best = without_prefix("best.", state.tensors)
        self.weights = {name: tensor.to(self.device) for name, tensor in best.items()}
        self.descent.restore(State(without_prefix("optimizer.", state.tensors), state.values))
        self.rows = [Epoch(**row) for row in state.values["rows"]]
        self.best = self.rows[state.values["best"]]
        self.part = _Part(**state.values["part"])
        self.arithmetic = Arithmetic(**state.values["arithmetic"])
        self.arithmetic.prepare(self.network)
        return True

    def _fits(self, state: State) -> bool:
        shapes = {name: tensor.shape for name, tensor in self.network.state_dict().items()}
        kept = {name: tensor.shape for name, tensor in without_prefix("network.", state.tensors).items()}
        return bool(kept == shapes and state.values["options"] == self.options.model_dump())

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().clone() for name, value in self.network.state_dict().items()}


def beyond_chance(share: float, other: float, count: int, other_count: int) -> bool:
    """Whether one share of `count` is larger than another of `other_count` by more than three standard errors."""
    pooled = (share * count + other * other_count) / (count + other_count)
    error = math.sqrt(pooled * (1 - pooled) * (1 / count + 1 / other_count))
    return share - other > 3 * error


def _seed(*place: int) -> int:
    return int(np.random.SeedSequence(place).generate_state(1)[0])


def _device(wanted: str) -> torch.device:
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


class _Diverged(EngineError):
    def __init__(self, epoch: int, cause: str) -> None:
        super().__init__("diverged", f"The loss leaves all bounds in epoch {epoch}.", f"Lower the {cause}.")


def _batch_too_small() -> EngineError:
    return EngineError(
        "batch_too_small",
        "A norm of the model has a single value per channel in a batch of one image, and nothing to normalise it by.",
        "Train on batches of two images or more: set finetuning.batch_size to at least 2.",
    )
