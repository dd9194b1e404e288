"""finetune: train the cut model on the job's dataset; before that, its torch form must agree with ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from models_store.documents.base import Document
from models_store.documents.report import Parity, Training
from worker.engine.graph import load_model
from worker.engine.masks.files import load_masks
from worker.runner.training import train
from worker.runner.workbench import Stage, Workbench

if TYPE_CHECKING:
    from worker.engine.torch_form import TorchForm


class Finetuned(Document):
    """The training, and what ran outside torch meanwhile."""

    parity: Parity
    training: Training
    nodes_outside_torch: tuple[str, ...]


def run(bench: Workbench) -> Finetuned:
    masks, epochs = load_masks(bench.masks_path), bench.spec.finetuning.epochs
    trained = train(bench, load_model(bench.start_path), bench.training_path, epochs=epochs, masks=masks)
    onnx.save(trained.form.write_back(), bench.final_path)
    return Finetuned(parity=trained.parity, training=trained.training, nodes_outside_torch=_outside_torch(trained.form))


def _outside_torch(form: TorchForm) -> tuple[str, ...]:
    from worker.engine.torch_form.foreign_node import ForeignNode

    nodes = (module.node for module in form.module.modules() if isinstance(module, ForeignNode))
    return tuple(f"{node.name or node.output[0]} ({node.op_type})" for node in nodes)


def reason_to_skip(bench: Workbench) -> str | None:
    if bench.order.dataset is None:
        return "The job has no dataset."
    return "The job asks for 0 epochs." if bench.spec.finetuning.epochs == 0 else None


STAGE = Stage("finetune", Finetuned, run, reason_to_skip)
