"""Scoring 100 random masks of ResNet-56 on 5,000 CIFAR-10 images: as jobs do it, against plain evaluations in a loop.

`python -m benchmarks.masks MODEL.onnx IMAGES` writes results/masks.json: MODEL from benchmarks.cifar_resnet, IMAGES an
archive with one folder of images per class. A plain evaluation is `worker.engine.measure.evaluate` of the network with
zeros in place of the masked filters: ONNX Runtime on all cores, 64 images at a time. Both are timed in turn, over a
few masks at a time, so that what disturbs one disturbs the other; --masks says how many of the 100 are timed.
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from rich.console import Console

from benchmarks import machine, results
from worker.engine.data import DataOptions, InputSpec, Split, open_dataset
from worker.engine.graph import Analysis, analyze, load_model
from worker.engine.kernels import find_targets
from worker.engine.kernels.proof import masked
from worker.engine.masks.draws import draw_kernels, draw_plan
from worker.engine.masks.scoring import Variant, score_variants
from worker.engine.measure import evaluate
from worker.engine.surgery import Plan, prune

FILE = results.FOLDER / "masks.json"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GOAL = 3.0
TURN = 4
"""Masks that are scored before the other way has its turn."""


def silenced(analysis: Analysis, plan: Plan) -> onnx.ModelProto:
    """The whole network with zeros in the weights that read removed channels."""
    alive = analysis.alive(plan.kept)
    masks: dict[str, np.ndarray] = {}
    for node in analysis.graph.nodes:
        if node.op_type in ("Conv", "Gemm"):
            name = node.input[1]
            (slot,) = [s for s in analysis.propagation.slots if s[0] == name]
            labels = analysis.propagation.slot_dims(slot)[1]
            if labels is not None:
                shape = analysis.graph.shape(name)
                columns = alive[labels].reshape(1, -1, *[1] * (len(shape) - 2))
                masks[name] = np.broadcast_to(columns, shape)
    return masked(analysis.graph.model, masks)


def compare(plain: list[Variant], ours: list[Variant], images: Split, threads: int) -> dict[str, Any]:
    """Seconds per mask of either way, turn by turn, and whether all scores are the same."""
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    wrong: dict[str, list[int]] = {"plain": [], "ours": []}
    for start in range(0, len(plain), TURN):
        for way in ("plain", "ours") if start // TURN % 2 == 0 else ("ours", "plain"):
            begun = time.perf_counter()
            if way == "plain":
                for variant in plain[start : start + TURN]:
                    found = evaluate(variant(), images, 10, threads)
                    wrong[way].append(round((1 - found.top1) * found.samples))
            else:
                scores = score_variants(ours[start : start + TURN], images, 10, threads=threads)
                wrong[way] += [each.wrong for each in scores]
            seconds[way].append((time.perf_counter() - begun) / len(plain[start : start + TURN]))
    ratios = np.array(seconds["plain"]) / np.array(seconds["ours"])
    return {
        "masks": len(plain),
        "images": len(images),
        "threads": threads,
        "plain_s_per_mask": float(np.median(seconds["plain"])),
        "ours_s_per_mask": float(np.median(seconds["ours"])),
        "speedup": float(np.median(ratios)),
        "speedup_low": float(np.percentile(ratios, 10)),
        "speedup_high": float(np.percentile(ratios, 90)),
        "same_scores": wrong["plain"] == wrong["ours"],
        "best": int(np.argmin(wrong["ours"])),
        "errors": [count / len(images) for count in wrong["ours"]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--masks", type=int, default=100)
    parser.add_argument("--keep", type=float, default=0.5, help="share of the channels of each layer that stays")
    parser.add_argument(
        "--kernels", type=int, default=4, help="masks of kernels timed beside; no claim is made of them"
    )
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    analysis = analyze(model)
    images = _images(arguments.images, InputSpec.of(model))
    threads = len(os.sched_getaffinity(0))

    kept = np.maximum(np.rint(analysis.full * arguments.keep).astype(np.int64), 1)
    plans = [draw_plan(analysis, kept, 0, number) for number in range(arguments.masks)]
    channels = compare(
        [lambda plan=plan: silenced(analysis, plan) for plan in plans],  # type: ignore[misc]
        [lambda plan=plan: prune(analysis, plan) for plan in plans],  # type: ignore[misc]
        images,
        threads,
    )
    channels["macs_kept"] = int(analysis.costs.macs(kept)) / analysis.macs
    targets, _ = find_targets(analysis)
    variants: list[Variant] = [
        lambda number=number: masked(model, dict(draw_kernels(targets, 0.5, 0, number)))  # type: ignore[misc]
        for number in range(arguments.kernels)
    ]
    rows = {"feature_map": channels}
    if variants:
        rows["kernel"] = compare(variants, variants, images, threads)
    claim = results.Claim(
        f"{channels['masks']} random masks of feature maps on {len(images):,} CIFAR-10 images for ResNet-56, "
        f"{arguments.keep:.0%} of the maps kept: time of plain evaluations / ours, same scores",
        4,
        f"{channels['speedup']:.2f}x, scores {'the same' if channels['same_scores'] else 'differ'}",
        f">= {GOAL}x, the same",
        bool(channels["same_scores"] and channels["speedup"] >= GOAL and channels["masks"] >= 100),
    )
    results.write(FILE, {"machine": machine.describe("onnxruntime", "numpy"), "rows": rows}, [claim])
    for name, row in rows.items():
        Console().print(
            f"{name}: plain {row['plain_s_per_mask']:.2f} s, ours {row['ours_s_per_mask']:.2f} s per mask, "
            f"{row['speedup']:.2f}x ({row['speedup_low']:.2f} to {row['speedup_high']:.2f}), "
            f"scores {'the same' if row['same_scores'] else 'DIFFER'}"
        )


def _images(path: Path, spec: InputSpec) -> Split:
    """All images of the archive, as one split."""
    dataset = open_dataset(path, spec, DataOptions(MEAN, STD), seed=0)
    parts = (dataset.train, dataset.validation, dataset.test)
    rows, labels = (np.concatenate([getattr(part, name) for part in parts]) for name in ("rows", "labels"))
    first = dataset.train
    return Split(first.images, rows, labels, first.scale, first.shift, first.layout)


if __name__ == "__main__":
    main()
