"""Paper 2, Coarse Pruning of Convolutional Neural Networks with Random Masks (Anwar and Sung), on CIFAR-10.

Trains the paper's network (2x128C3-MP2-2x128C3-MP2-2x256C3-256FC-10, here with BatchNormalization), removes feature
maps, kernels, and feature maps then kernels, by the best of N random masks and by the L1 vote at the same counts, and
retrains each with the mask frozen. Masks and epochs are chosen on images held out of the training images.

Every network is kept as ONNX in the cache (see benchmarks.zoo) as soon as it is made, and every row is written as soon
as it is known: a run that is stopped goes on where it was.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks import results
from benchmarks.accuracy_bases import SHARED, precision
from benchmarks.cifar_onnx import export
from benchmarks.zoo import cache
from worker.engine.allocation import plan_of
from worker.engine.criteria import score
from worker.engine.data import DataOptions, Dataset, InputSpec, open_dataset
from worker.engine.graph import Analysis, analyze, load_model
from worker.engine.kernels import find_targets
from worker.engine.kernels.layouts.free import weakest_kernels_gone
from worker.engine.kernels.proof import masked
from worker.engine.kernels.targets import Target, importance
from worker.engine.masks.files import load_masks, save_masks
from worker.engine.masks.search import Search, best_kernels, best_plan
from worker.engine.masks.weights import Masks, broken_masks
from worker.engine.measure import evaluate
from worker.engine.recovery import FinetuneOptions, finetune
from worker.engine.recovery.checkpoint import Checkpoints
from worker.engine.surgery import prune
from worker.engine.torch_form import build
from worker.runner.kernels import conv_weights

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
CONSOLE = Console()


class Step(NamedTuple):
    """One network: what is taken out of the network `of`, and how it is chosen. `share` is what goes: of the feature
    maps of each layer, or of the kernels of each convolution."""

    name: str
    of: str
    granularity: str
    selection: str
    share: float


def _steps() -> tuple[Step, ...]:
    """The steps that the claim rests on come first."""
    wanted = []
    for selection in ("random", "l1"):
        maps = [Step(f"{selection} maps {share:.0%}", "base", "maps", selection, share) for share in (0.45, 0.3)]
        both = [
            Step(f"{selection} both {maps[0].share:.0%} {share:.0%}", maps[0].name, "kernels", selection, share)
            for share in (0.55, 0.7)
        ]
        alone = [Step(f"{selection} kernels {s:.0%}", "base", "kernels", selection, s) for s in (0.6, 0.8)]
        wanted += [[maps[0], both[0]], [maps[1], alone[0], both[1], alone[1]]]
    return tuple(step for part in (wanted[0], wanted[2], wanted[1], wanted[3]) for step in part)


STEPS = _steps()


def network(width: int = 128) -> nn.Module:
    """2x128C3-MP2-2x128C3-MP2-2x256C3-256FC-10 at its own width, (N, 3, 32, 32) -> (N, 10)."""
    layers: list[nn.Module] = []
    inputs = 3
    for multiple, pooled in ((1, False), (1, True), (1, False), (1, True), (2, False), (2, False)):
        outputs = multiple * width
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if pooled else []
        inputs = outputs
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(2 * width * 64, 2 * width), nn.ReLU(), nn.Linear(2 * width, 10)
    )


def untrained(path: Path, width: int) -> onnx.ModelProto:
    torch.manual_seed(0)
    export(network(width), path)
    return load_model(path)


class Run:
    """The cached networks and the rows known so far."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.folder = cache() / f"papers_{arguments.width}_{arguments.base_epochs}_{arguments.epochs}_{arguments.masks}"
        self.folder.mkdir(parents=True, exist_ok=True)
        start = untrained(self.folder / "untrained.onnx", arguments.width)
        spec, options = InputSpec.of(start), DataOptions(MEAN, STD)
        self.dataset: Dataset = open_dataset(arguments.train, spec, replace(options, test_fraction=0.01), seed=0)
        tested = open_dataset(arguments.test, spec, options, seed=0)
        self.test = (tested.train, tested.validation, tested.test)
        self.start = start

    def base(self) -> dict[str, Any]:
        if self._row_path("base").exists():
            return self._row("base")
        rate = FinetuneOptions(epochs=self.arguments.base_epochs, learning_rate=0.05)
        model = self._trained("base", self.start, {}, rate)
        return self._keep("base", model, {}, {})

    def step(self, step: Step) -> dict[str, Any]:
        if self._row_path(step.name).exists():
            return self._row(step.name)
        model = load_model(self._path(step.of))
        analysis = analyze(model)
        search = Search(self.dataset, self.arguments.masks, family=1, seed=0, threads=self.arguments.threads)
        cut, masks, found = self._cut(step, analysis, search)
        before = self._error(cut)
        options = FinetuneOptions(epochs=self.arguments.epochs, learning_rate=0.02)
        trained = self._trained(step.name, cut, masks, options)
        broken = broken_masks(trained, masks)
        if broken:
            raise ValueError(f"masked weights came back: {broken}")
        return self._keep(step.name, trained, masks, {**step._asdict(), **found, "error_before_training": before})

    def _cut(self, step: Step, analysis: Analysis, search: Search) -> tuple[onnx.ModelProto, Masks, dict[str, Any]]:
        found: dict[str, Any] = {}
        if step.granularity == "maps":
            kept = np.rint(analysis.full * (1 - step.share)).astype(np.int64)
            kept = np.where([_is_convolved(analysis, g) for g in range(len(kept))], kept, analysis.full)
            plan = plan_of(analysis, score(analysis, "l1"), kept)
            if step.selection == "random":
                plan, outcome = best_plan(analysis, kept, search)
                found = {"drawn": [each.error for each in outcome.scores], "l1_vote": outcome.control.error}
            return prune(analysis, plan), {}, found
        targets, _ = find_targets(analysis)
        kernels = _vote(analysis, targets, step.share)
        if step.selection == "random":
            kernels, outcome = best_kernels(analysis, targets, step.share, search)
            found = {"drawn": [each.error for each in outcome.scores], "l1_vote": outcome.control.error}
        masks = {
            name: np.broadcast_to(
                mask.reshape(*mask.shape[:2], *mask.shape[2:] or (1, 1)), analysis.graph.shape(name)
            ).copy()
            for name, mask in kernels.items()
        }
        return masked(analysis.graph.model, masks), masks, found

    def _trained(self, name: str, model: onnx.ModelProto, masks: Masks, options: FinetuneOptions) -> onnx.ModelProto:
        form = build(model)
        how = {"crop_padding": 4, "horizontal_flip": True, "precision": precision(), "device": "auto"}
        options = options.model_copy(update=how)
        checkpoints = Checkpoints(self._path(name).with_suffix(".checkpoint"), every_s=120)
        finetune(
            form, self.dataset, options, lambda epoch: CONSOLE.print(name, epoch), masks=masks, checkpoints=checkpoints
        )
        checkpoints.remove()
        return form.write_back()

    def _error(self, model: onnx.ModelProto) -> float:
        wrong = [(1 - evaluate(model, part, 10, self.arguments.threads).top1) * len(part) for part in self.test]
        return sum(wrong) / sum(len(part) for part in self.test)

    def _keep(self, name: str, model: onnx.ModelProto, masks: Masks, known: dict[str, Any]) -> dict[str, Any]:
        stored, kept = conv_weights(model)
        row = {**known, "name": name, "error": self._error(model), "conv_weights": kept, "conv_weights_stored": stored}
        onnx.save(model, self._path(name))
        save_masks(self._path(name).with_suffix(".npz"), masks)
        unfinished = self._row_path(name).with_suffix(".tmp")
        unfinished.write_text(json.dumps(row))
        unfinished.replace(self._row_path(name))
        return row

    def _path(self, name: str) -> Path:
        return self.folder / f"{name.replace(' ', '_').replace('%', '')}.onnx"

    def _row_path(self, name: str) -> Path:
        return self._path(name).with_suffix(".json")

    def _row(self, name: str) -> dict[str, Any]:
        row: dict[str, Any] = json.loads(self._row_path(name).read_text())
        broken = broken_masks(load_model(self._path(name)), load_masks(self._path(name).with_suffix(".npz")))
        if broken:
            raise ValueError(f"{self._path(name)} is not what was kept: {broken}")
        return row


def _is_convolved(analysis: Analysis, group: int) -> bool:
    """Whether a group is made by convolutions: feature maps, not the neurons of the dense layer."""
    return any(analysis.graph.nodes[s.node].op_type == "Conv" for s in analysis.groups[group].sources)


def _vote(analysis: Analysis, targets: list[Target], share: float) -> dict[str, np.ndarray]:
    return {
        target.weight: weakest_kernels_gone(importance(analysis.graph.array(target.weight), "l1"), share)
        for target in targets
    }


def claims(found: dict[str, Any]) -> list[results.Claim]:
    """More than 85 % of the conv weights at less than one point more misclassification, by random masks; beside it what
    the L1 vote has at the same counts, where it was trained."""
    if not found:
        return []
    base = found["base"]
    controls = {row["name"]: row for row in found["rows"] if row["selection"] == "l1"}
    rows = [row for row in found["rows"] if row["selection"] == "random" and row["of"] != "base"]
    removed = {row["name"]: 1 - row["conv_weights"] / base["conv_weights"] for row in rows}
    most = [row for row in rows if removed[row["name"]] > 0.85]
    if not most:
        return []
    best = min(most, key=lambda row: row["error"])
    more = 100 * (best["error"] - base["error"])
    value = f"{removed[best['name']]:.1%}; {more:+.2f} points"
    control = controls.get(best["name"].replace("random", "l1"))
    if control:
        value += f" (the L1 vote at the same counts: {100 * (control['error'] - base['error']):+.2f} points)"
    name = "paper 2 on CIFAR-10: conv weights removed by feature maps, then kernels; more misclassification"
    return [results.Claim(name, 4, value, "> 85 %; < 1 point", more < 1)]


def table(base: dict[str, Any], rows: list[dict[str, Any]]) -> Table:
    shown = Table(title=f"Base: {base['error']:.2%} of the test images misclassified")
    for heading in ("network", "conv weights removed", "wrong before training", "wrong after", "change"):
        shown.add_column(heading, justify="right")
    for row in rows:
        shown.add_row(
            row["name"],
            f"{1 - row['conv_weights'] / base['conv_weights']:.1%}",
            f"{row['error_before_training']:.2%}",
            f"{row['error']:.2%}",
            f"{100 * (row['error'] - base['error']):+.2f} points",
        )
    return shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    data = SHARED / "data"
    archive = "an archive with one folder of images per class"
    parser.add_argument("--train", type=Path, default=data / "cifar10_train.tar.xz", help=archive)
    parser.add_argument("--test", type=Path, default=data / "cifar10_val.tar.xz", help=archive)
    parser.add_argument("--masks", type=int, default=100)
    parser.add_argument("--base-epochs", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--width", type=int, default=128, help="128 is the paper's; less is a trial, without results")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())


def run(arguments: argparse.Namespace, keep: Callable[[dict[str, Any]], None]) -> None:
    """Every step, each kept as soon as it is known."""
    torch.set_num_threads(arguments.threads)
    run = Run(arguments)
    base, rows = run.base(), []
    for step in STEPS:
        rows.append(run.step(step))
        if arguments.width == 128:
            settings = {name: value for name, value in vars(arguments).items() if isinstance(value, int)}
            keep({"settings": settings, "finished": len(rows) == len(STEPS), "base": base, "rows": rows})
        CONSOLE.print(table(base, rows))
