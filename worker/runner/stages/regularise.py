"""regularise: train the whole network while a growing decay makes the weights vanish that the plan will remove."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from models_store.documents.base import Document
from models_store.documents.job_spec import JobSpec
from models_store.documents.report import Training
from worker.runner.stages import estimate
from worker.runner.training import train
from worker.runner.workbench import Stage, Workbench

if TYPE_CHECKING:
    from worker.engine.recovery import SelectiveDecay
    from worker.engine.torch_form import TorchForm


_MUCH = 0.1
_SWIFT = 1.0
"""Learning rate times decay; from not much more on, the steps of a momentum of 0.9 overshoot."""


class Regularised(Document):
    """The training before the cut."""

    training: Training
    doomed_left: float | None = None
    """None where nothing was to go, too."""

    def warnings(self, spec: JobSpec) -> tuple[str, ...]:
        if self.doomed_left is None or self.doomed_left <= _MUCH or spec.regularisation is None:
            return ()
        advice, tuned = "More regularisation.epochs make them vanish", spec.finetuning
        if tuned.optimizer == "adamw":
            advice += ", or a higher finetuning.learning_rate"
        elif self.training.retreats == 0 and tuned.learning_rate * spec.regularisation.last < _SWIFT:
            advice += ", or a higher regularisation.last"
        return (
            f"The training before the cut left {self.doomed_left:.0%} of the weights that were to vanish (of their "
            f"norm); the cut took them all the same. {advice}.",
        )


def run(bench: Workbench) -> Regularised:
    from worker.engine.recovery import SelectiveDecay, doomed_weights

    wanted = bench.spec.regularisation
    if wanted is None:
        raise ValueError("the job asks for no regularisation")
    plan = bench.read(estimate.STAGE).plan(bench.analysis)
    begun: list[tuple[SelectiveDecay, float]] = []

    def decay(form: TorchForm) -> SelectiveDecay:
        doomed = doomed_weights(bench.analysis, plan, form)
        found = SelectiveDecay(doomed, wanted.method, wanted.first, wanted.last)
        begun.append((found, found.norm(form.module)))
        return found

    checkpoint = bench.training_path.with_stem("regularising")
    trained = train(bench, bench.original, checkpoint, epochs=wanted.epochs, decay=decay)
    onnx.save(trained.form.write_back(), bench.regularised_path)
    ((grown, before),) = begun
    left = grown.norm(trained.form.module)
    return Regularised(training=trained.training, doomed_left=left / before if before > 0 else None)


def reason_to_skip(bench: Workbench) -> str | None:
    return "The job asks for none." if bench.spec.regularisation is None else None


STAGE = Stage("regularise", Regularised, run, reason_to_skip)
