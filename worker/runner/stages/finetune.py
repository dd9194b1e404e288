"""finetune: train the cut model on the job's dataset; before that, its torch form must agree with ONNX Runtime."""

from __future__ import annotations

from dataclasses import asdict

import onnx

from models_store.documents.base import Document
from models_store.documents.report import EpochRow, Parity, Training
from worker.engine.graph import load_model
from worker.engine.masks.files import load_masks
from worker.runner.interruption import Stopped
from worker.runner.workbench import Stage, Workbench


class Finetuned(Document):
    """The training, and what ran outside torch meanwhile."""

    parity: Parity
    training: Training
    nodes_outside_torch: tuple[str, ...]


def run(bench: Workbench) -> Finetuned:
    # Imported here: a job without data needs no torch, which takes seconds to load.
    from worker.engine.recovery import Checkpoints, Epoch, FinetuneOptions, Interrupted, finetune
    from worker.engine.torch_form import TorchForm
    from worker.engine.torch_form.node_modules import ForeignNode
    from worker.runner.torch_model import checked_form

    def outside_torch(form: TorchForm) -> tuple[str, ...]:
        nodes = (module.node for module in form.module.modules() if isinstance(module, ForeignNode))
        return tuple(f"{node.name or node.output[0]} ({node.op_type})" for node in nodes)

    def tell(epoch: Epoch) -> None:
        bench.voice.metric({name: value for name, value in asdict(epoch).items() if value is not None})

    if bench.dataset is None:
        raise ValueError("a job without a dataset has no finetuning")
    form, agreement = checked_form(load_model(bench.start_path), bench.spec.seed)
    options = FinetuneOptions(**bench.spec.finetuning.model_dump(), seed=bench.spec.seed, device=bench.order.device)
    needs_teacher = options.distillation > 0 or not bench.dataset.labelled
    teacher = checked_form(bench.original, bench.spec.seed)[0] if needs_teacher else None
    masks, told = load_masks(bench.masks_path), bench.interruption.told_to_stop
    checkpoints = Checkpoints(bench.training_path, bench.order.checkpoint_s, told, bench.checkpoint)
    try:
        with bench.interruption.deferred():
            training = finetune(form, bench.dataset, options, tell, bench.voice.progress, masks, checkpoints, teacher)
    except Interrupted as interruption:
        raise Stopped from interruption
    onnx.save(form.write_back(), bench.final_path)
    checkpoints.remove()
    return Finetuned(
        parity=agreement,
        training=Training(
            device=training.device,
            train_samples=training.train_samples,
            validation_samples=training.validation_samples,
            precision=training.arithmetic.precision,
            channels_last=training.arithmetic.channels_last,
            best_epoch=training.best_epoch,
            epochs=tuple(EpochRow(**asdict(epoch)) for epoch in training.epochs),
        ),
        nodes_outside_torch=outside_torch(form),
    )


def reason_to_skip(bench: Workbench) -> str | None:
    if bench.order.dataset is None:
        return "The job has no dataset."
    return "The job asks for 0 epochs." if bench.spec.finetuning.epochs == 0 else None


STAGE = Stage("finetune", Finetuned, run, reason_to_skip)
