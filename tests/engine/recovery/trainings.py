"""Trainings that one process and two are to end alike.

`python -m torch.distributed.run … trainings.py FOLDER DEVICE` runs them in a team; FOLDER gets what each process got.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.distributed as dist

from worker.engine.data import Dataset, InputSpec, open_dataset
from worker.engine.errors import EngineError
from worker.engine.recovery import Checkpoints, FinetuneOptions, Interrupted, SelectiveDecay, finetune
from worker.engine.recovery.arithmetic import CANDIDATES
from worker.engine.recovery.team import Team
from worker.engine.recovery.together import Together
from worker.engine.torch_form import TorchForm, build
from worker.runner.assignment import Assignment
from worker.runner.crew import Crew
from worker.runner.diagnosis import Told, diagnose
from worker.runner.interruption import Interruption
from worker.work_folder import WorkFolder

finetune_module = importlib.import_module("worker.engine.recovery.finetune")
OPTIONS = FinetuneOptions(
    epochs=2,
    learning_rate=0.05,
    batch_size=37,  # odd, and leaves an odd rest
    crop_padding=1,
    horizontal_flip=True,
    label_smoothing=0.1,
    device="cpu",
    precision="float32",
)
WITHOUT_NORMS, WITH_NORMS, WITH_A_CHOICE, RESIDUAL = "plain.onnx", "norms.onnx", "choice.onnx", "residual.onnx"
Train = Callable[["Place", Team], TorchForm]


class Place:
    """Where models and images lie, and where one process keeps what it found."""

    def __init__(self, folder: Path, name: str, device: str = "cpu") -> None:
        self.folder, self.own, self.device = folder, folder / name, device
        self.own.mkdir(exist_ok=True)

    def form(self, model: str) -> TorchForm:
        return build(onnx.load(self.folder / model))

    def dataset(self, labelled: bool = True) -> Dataset:
        found = open_dataset(self.folder / "images.npz", InputSpec.of(onnx.load(self.folder / WITH_NORMS)))
        return found if labelled else replace(found, classes=())


def train(place: Place, team: Team, model: str = WITHOUT_NORMS, **changed: object) -> TorchForm:
    form = place.form(model)
    options = OPTIONS.model_copy(update={**changed, "device": place.device})
    training = finetune(form, place.dataset(), options, team=team)
    assert (training.processes, training.best_epoch > 0) == (team.processes, True)
    return form


def frozen(place: Place, team: Team) -> TorchForm:
    form = place.form(WITH_NORMS)
    shape = form.module.get_parameter(form.parameters["conv1.weight"]).shape
    masks = {"conv1.weight": np.arange(shape.numel()).reshape(shape) % 3 > 0}
    finetune(form, place.dataset(), OPTIONS.model_copy(update={"device": place.device}), masks=masks, team=team)
    left = form.module.get_parameter(form.parameters["conv1.weight"]).detach().cpu().numpy()
    assert ((left == 0) == ~masks["conv1.weight"]).all()
    return form


def decayed(place: Place, team: Team) -> TorchForm:
    form = place.form(WITH_NORMS)
    path = form.parameters["conv1.weight"]
    shape = form.module.get_parameter(path).shape
    decay = SelectiveDecay({path: torch.arange(shape.numel()).view(shape) % 2 > 0}, "greg", 1e-2, 1.0)
    finetune(form, place.dataset(), OPTIONS.model_copy(update={"device": place.device}), decay=decay, team=team)
    return form


def taught(place: Place, team: Team, labelled: bool) -> TorchForm:
    """By the softened scores of a teacher beside labels, or by its outputs alone."""
    form = place.form(WITH_NORMS)
    options = OPTIONS.model_copy(update={"distillation": 0.7 if labelled else 0.0, "device": place.device})
    teacher = place.form(WITHOUT_NORMS if labelled else "teacher.onnx")
    finetune(form, place.dataset(labelled), options, teacher=teacher, team=team)
    return form


def interrupted(place: Place, team: Team) -> TorchForm:
    """Cut off by what the first process alone is told, again and again."""
    path = place.folder / f"{team.processes}.safetensors"
    cuts = 0
    while True:
        form = place.form(WITH_NORMS)
        asked = iter([False] * 4 + [True])
        stop = (lambda asked=asked: next(asked)) if team.rank == 0 else (lambda: False)
        try:
            options = OPTIONS.model_copy(update={"device": place.device})
            finetune(form, place.dataset(), options, checkpoints=Checkpoints(path, 0, stop), team=team)
            assert cuts > 1
            return form
        except Interrupted:
            cuts += 1


CASES: dict[str, Train] = {
    "plain": train,
    "batches_smaller_than_the_team": partial(train, batch_size=1, epochs=1),
    "adamw": partial(train, optimizer="adamw", learning_rate=1e-3),
    "norms": partial(train, model=WITH_NORMS),
    "mixed_precision": partial(train, model=WITH_NORMS, precision="bfloat16"),
    "weights_without_gradient": partial(train, model=WITH_A_CHOICE),
    "frozen": frozen,
    "decayed": decayed,
    "distilled": partial(taught, labelled=True),
    "imitating": partial(taught, labelled=False),
    "interrupted": interrupted,
    "retreating": partial(train, model=RESIDUAL, learning_rate=2.0, gradient_clipping=0.0),
}


def weights(form: TorchForm) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in form.module.state_dict().items()}


def diverge(place: Place, team: Team) -> str:
    try:
        train(place, team, learning_rate=1e30)
    except EngineError as error:
        return error.code
    return "learnt"


def chosen_arithmetic(place: Place, team: Team) -> dict[str, object]:
    """After a trial in which each process finds something else."""
    finetune_module.fastest = lambda *_: CANDIDATES[1 - team.rank]
    options = OPTIONS.model_copy(update={"precision": "auto", "epochs": 1, "device": place.device})
    training = finetune(place.form(WITH_NORMS), place.dataset(), options, team=team)
    return asdict(training.arithmetic)


def given_up(place: Place, team: Together) -> str:
    """The second process runs out of memory in a training, and the first one is told; what it then says."""
    crew = Crew(WorkFolder(place.folder), team, dist.new_group(backend="gloo"), 1)
    if team.rank:
        assignment, _ = next(crew.assignments())
        crew.prepared()
        crew.give_up(MemoryError(f"for {assignment.options.epochs} epochs"))
        os._exit(0)
    try:
        model = onnx.load(place.folder / WITH_NORMS)
        with crew.training(Assignment(model, OPTIONS, place.own, {}, None, False), Interruption()) as together:
            together.total(1.0)
    except Told as told:
        return diagnose(told, "finetune").model_dump_json()
    return "nothing"


def main() -> None:
    folder, device = Path(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    if device == "cuda":
        torch.cuda.set_device(dist.get_node_local_rank())
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    team = Together(dist.group.WORLD, dist.new_group(backend="gloo"))
    place = Place(folder, f"process{team.rank}", device)
    for name, case in CASES.items():
        torch.save(weights(case(place, team)), place.own / f"{name}.pt")
    finetune_module.MIN_STEPS = 1
    told = {"diverged": diverge(place, team), "arithmetic": chosen_arithmetic(place, team)}
    (place.own / "told.json").write_text(json.dumps(told))
    (place.own / "given_up.json").write_text(given_up(place, team))
    os._exit(0)  # nothing that waits for the second process


if __name__ == "__main__":
    main()
