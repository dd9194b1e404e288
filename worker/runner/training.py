"""A training within a job: on the job's images, with its options, resumed where an earlier attempt was cut off."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from models_store.documents.report import EpochRow, Parity, Training
from worker.engine.graph.inputs import declared_shape, given_inputs
from worker.engine.masks.weights import Masks
from worker.runner.interruption import Stopped
from worker.runner.workbench import Workbench

if TYPE_CHECKING:
    from worker.engine.recovery import FinetuneOptions, SelectiveDecay
    from worker.engine.recovery.team import Team
    from worker.engine.torch_form import TorchForm

_NO_MASKS: Masks = {}


@dataclass(frozen=True)
class Trained:
    """The form with its new weights, what it was checked to be before, and the curve."""

    form: TorchForm
    parity: Parity
    training: Training


def train(
    bench: Workbench,
    model: onnx.ModelProto,
    checkpoint: Path,
    *,
    epochs: int,
    masks: Masks = _NO_MASKS,
    decay: Callable[[TorchForm], SelectiveDecay] | None = None,
) -> Trained:
    """Train `model` as `finetuning` says, for so many epochs. Raises Stopped when the worker is told to leave; the next
    attempt goes on at the file `checkpoint`."""
    # Imported here: a job without data needs no torch, which takes seconds to load.
    from worker.engine.recovery import Checkpoints, Epoch, FinetuneOptions, Interrupted, finetune, needs_teacher
    from worker.runner.torch_model import checked_form

    def tell(epoch: Epoch) -> None:
        round = {} if bench.step is None else {"round": bench.step}
        bench.voice.metric({**{name: value for name, value in asdict(epoch).items() if value is not None}, **round})

    if bench.dataset is None:
        raise ValueError("a job without a dataset has no training")
    form, parity = checked_form(model, bench.spec.seed)
    asked_for = bench.spec.finetuning.model_dump() | {"epochs": epochs}
    options = FinetuneOptions(**asked_for, seed=bench.spec.seed, device=bench.order.device)
    taught = needs_teacher(form, bench.dataset, options)
    teacher = checked_form(bench.original, bench.spec.seed)[0] if taught else None
    checkpoints = Checkpoints(checkpoint, bench.order.checkpoint_s, bench.interruption.told_to_stop, bench.checkpoint)
    growing = decay(form) if decay is not None else None
    try:
        with (
            bench.interruption.deferred(),
            _team(bench, model, options, checkpoint, masks, growing, taught) as team,
        ):
            found = finetune(
                form, bench.dataset, options, tell, bench.voice.progress, masks, checkpoints, teacher, growing, team
            )
    except Interrupted as interruption:
        raise Stopped from interruption
    checkpoints.remove()
    training = Training(
        device=found.device,
        processes=found.processes,
        train_samples=found.train_samples,
        validation_samples=found.validation_samples,
        precision=found.arithmetic.precision,
        channels_last=found.arithmetic.channels_last,
        taught=taught,
        retreats=found.retreats,
        best_epoch=found.best_epoch,
        judged_on_both=found.judged_on_both,
        epochs=tuple(EpochRow(**asdict(epoch)) for epoch in found.epochs),
    )
    return Trained(form, parity, training)


def _team(
    bench: Workbench,
    model: onnx.ModelProto,
    options: FinetuneOptions,
    checkpoint: Path,
    masks: Masks,
    decay: SelectiveDecay | None,
    taught: bool,
) -> AbstractContextManager[Team]:
    """Who trains: this process, or in the block all of the job's."""
    from worker.engine.recovery.team import ALONE

    if bench.crew is None:
        return nullcontext(ALONE)
    if (images := _fixed_batch(model)) is not None:
        bench.voice.log(f"The model takes {images} images at a time, no more and no fewer: one process trains it.")
        return nullcontext(ALONE)
    from worker.runner.assignment import Assignment

    assignment = Assignment(model, options, checkpoint, masks, decay, taught)
    return bench.crew.training(assignment, bench.interruption)


def _fixed_batch(model: onnx.ModelProto) -> int | None:
    """The images that the model's input insists on, where that is more than one: parts of a batch would not do."""
    shapes = (declared_shape(value) for value in given_inputs(model))
    found = next((shape[0] for shape in shapes if shape), None)
    return found if isinstance(found, int) and found > 1 else None
