"""regularise: train the whole network while a growing decay makes the weights vanish that the plan will remove."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from models_store.documents.base import Document
from models_store.documents.report import Training
from worker.runner.stages import estimate
from worker.runner.training import train
from worker.runner.workbench import Stage, Workbench

if TYPE_CHECKING:
    from worker.engine.recovery import SelectiveDecay
    from worker.engine.torch_form import TorchForm


class Regularised(Document):
    """The training before the cut."""

    training: Training


def run(bench: Workbench) -> Regularised:
    from worker.engine.recovery import SelectiveDecay, doomed_weights

    wanted = bench.spec.regularisation
    if wanted is None:
        raise ValueError("the job asks for no regularisation")
    plan = bench.read(estimate.STAGE).plan(bench.analysis)

    def decay(form: TorchForm) -> SelectiveDecay:
        return SelectiveDecay(doomed_weights(bench.analysis, plan, form), wanted.method, wanted.first, wanted.last)

    checkpoint = bench.training_path.with_stem("regularising")
    trained = train(bench, bench.original, checkpoint, epochs=wanted.epochs, decay=decay)
    onnx.save(trained.form.write_back(), bench.regularised_path)
    return Regularised(training=trained.training)


def reason_to_skip(bench: Workbench) -> str | None:
    return "The job asks for none." if bench.spec.regularisation is None else None


STAGE = Stage("regularise", Regularised, run, reason_to_skip)
