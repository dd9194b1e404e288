"""Kernels in the grouped layout against feature maps, on trained CIFAR-10 networks at equal measured latency (issue 4).

    python -m benchmarks.layouts                        # what is missing in results/layouts.json
    python -m benchmarks.layouts --bases resnet56 --sparsities 0.75 --epochs 1

Needs the shared folder beside the checkout; bases and data are kept in ESPALIER_BENCHMARK_CACHE. The grouped network is
made first. Feature maps then go, uniformly and by the same criterion, until a run takes as long: the MACs are found by
bisection, each try timed in turn with the grouped network. Both get BN re-estimation on the same images, and the same
finetuning where epochs are asked for. Accuracy is that of ONNX Runtime on `cifar10_val`, which chooses nothing.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import onnx
import torch
from rich.console import Console
from rich.table import Table

from benchmarks import machine, results
from benchmarks.accuracy_bases import MEAN, STD, cifar10, folder, load
from benchmarks.cifar_onnx import export
from worker.engine.allocation import allocate, macs_limit
from worker.engine.criteria import score
from worker.engine.data import DataOptions, Dataset, InputSpec, open_dataset
from worker.engine.graph import Analysis, analyze
from worker.engine.kernels import group_kernels
from worker.engine.kernels.proof import prove_layout
from worker.engine.measure import evaluate, latency
from worker.engine.recovery import FinetuneOptions, calibration_batches, finetune, reestimate_norms
from worker.engine.surgery import prune
from worker.engine.torch_form import build

FILE = results.FOLDER / "layouts.json"
CRITERION, SEED = "l2", 0
BLOCKS = 2  # in layers of 16 to 64 channels, smaller blocks cost more time than they save
BATCH, THREADS, ROUNDS = 8, 1, 60
CALIBRATION_IMAGES, CLASSES = 2000, 10
LAYOUTS = ("grouped kernels", "feature maps")

Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bases", nargs="+", choices=("resnet20", "resnet56", "vgg16_bn"), default=["resnet20"])
    parser.add_argument("--sparsities", nargs="+", type=float, default=[0.5, 0.75])
    parser.add_argument("--epochs", type=int, default=1)
    options = parser.parse_args(arguments)
    if options.epochs < 1:
        parser.error("--epochs: both sides have to be trained, for 1 epoch at least")
    torch.set_num_threads(THREADS)
    rows: list[Row] = results.read(FILE).get("rows", [])
    for base in options.bases:
        for sparsity in options.sparsities:
            if not any((row["base"], row["sparsity"]) == (base, sparsity) for row in rows):
                rows += compare(base, sparsity, options.epochs)
                found = machine.describe("onnx", "onnxruntime", "torch")
                results.write(FILE, {"machine": found, "rows": rows}, claims(rows))
    show(rows)
    return 0


def compare(base: str, sparsity: float, epochs: int) -> list[Row]:
    """A row for each of the LAYOUTS: speed against the original, accuracy before and after training."""
    path = folder() / f"{base}_option_a.onnx"
    if not path.exists():
        export(load(base, "option_a"), path)
    model = onnx.load(path)
    grouped = group_kernels(model, sparsity, blocks=BLOCKS, criterion=CRITERION, seed=SEED)
    assert prove_layout(model, grouped).passed
    narrow = as_fast_as(grouped.model, analyze(model))
    data = open_dataset(cifar10(), InputSpec.of(model), DataOptions(MEAN, STD), SEED)
    original = analyze(model)
    made = []
    for layout, pruned in zip(LAYOUTS, (grouped.model, narrow), strict=True):
        (time,) = latency(model, pruned, (BATCH,), THREADS, ROUNDS)
        made.append(
            {
                "base": base,
                "sparsity": sparsity,
                "layout": layout,
                "macs_ratio": round(analyze(pruned).macs / original.macs, 4),
                "speedup": round(time.speedup, 3),
                "speedup_low": round(time.speedup_low, 3),
                "speedup_high": round(time.speedup_high, 3),
                "epochs": epochs,
                "top1": accuracies(pruned, data, epochs),
            }
        )
        print(made[-1], flush=True)
    return made


def as_fast_as(goal: onnx.ModelProto, analysis: Analysis) -> onnx.ModelProto:
    """The original with as many feature maps as a run of the goal's length allows."""
    scores = score(analysis, CRITERION)
    low, high, best = 0.02, 1.0, None
    for _ in range(7):
        middle = (low + high) / 2
        plan = allocate(analysis, scores, [macs_limit(analysis, middle)], method="uniform", round_to=1).plan
        tried = prune(analysis, plan)
        (time,) = latency(goal, tried, (BATCH,), THREADS, ROUNDS)
        if time.speedup >= 1:  # not slower than the goal
            low, best = middle, tried
        else:
            high = middle
    assert best is not None, "no number of feature maps makes it as fast"
    return best


def accuracies(pruned: onnx.ModelProto, data: Dataset, epochs: int) -> dict[str, float]:
    """Top-1 as cut, with norms taken anew, and after training."""
    form = build(pruned)
    found = {"cut": top1(pruned, data)}
    reestimate_norms(form, calibration_batches(data.train, CALIBRATION_IMAGES, (form,), SEED))
    found["bn"] = top1(form.write_back(), data)
    options = FinetuneOptions(
        epochs=epochs,
        learning_rate=0.02,
        crop_padding=4,
        horizontal_flip=True,
        precision="float32",
        seed=SEED,
    )
    finetune(form, data, options)
    return found | {"trained": top1(form.write_back(), data)}


def top1(model: onnx.ModelProto, data: Dataset) -> float:
    return evaluate(model, data.test, CLASSES, THREADS).top1


def claims(rows: list[Row]) -> list[results.Claim]:
    """The grouped layout more accurate than feature maps at equal measured latency, after training; a claim a base."""
    made = []
    for base in dict.fromkeys(row["base"] for row in rows):
        pairs = [[row for row in rows if (row["base"], row["layout"]) == (base, layout)] for layout in LAYOUTS]
        texts, ahead = [], []
        for grouped, narrow in zip(*pairs, strict=True):
            ahead.append(100 * (grouped["top1"]["trained"] - narrow["top1"]["trained"]))
            texts.append(
                f"{ahead[-1]:+.2f} points at {grouped['sparsity']:.0%} sparsity ({grouped['speedup']:.2f}x and "
                f"{narrow['speedup']:.2f}x as fast as the original)"
            )
        name = f"{base}: grouped kernels more accurate than feature maps at equal measured latency, trained alike"
        made.append(results.Claim(name, 4, "; ".join(texts), "more than 0 points", min(ahead) > 0))
    return made


def show(rows: list[Row]) -> None:
    columns = [column for column in rows[0] if column != "top1"]
    table = Table(*columns, *rows[0]["top1"])
    for row in rows:
        table.add_row(*(str(row[column]) for column in columns), *(f"{value:.2%}" for value in row["top1"].values()))
    Console(width=200).print(table)
    for claim in claims(rows):
        print(f"{'holds' if claim.holds else 'does not hold'}: {claim.name}: {claim.value} (goal: {claim.goal})")


if __name__ == "__main__":
    sys.exit(main())
