"""Scoring 100 random masks of ResNet-56 on 5,000 CIFAR-10 images: as jobs do it, against plain evaluations in a loop.

`python -m benchmarks.masks MODEL.onnx IMAGES` writes results/masks.json: MODEL from benchmarks.cifar_resnet, IMAGES an
archive with one folder of images per class. A plain evaluation is `worker.engine.measure.evaluate` of the network with
zeros in place of the masked filters: ONNX Runtime on all cores, 64 images at a time. Both are timed in turn, over a
few masks at a time, so that what disturbs one disturbs the other. Jobs draw masks in families of ten that have the
network's first half in common; masks drawn each by itself, as in the paper, are timed beside them, and so are kernels.
"""

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
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
from worker.engine.masks.draws import Draws, draw_kernels, draw_plan
from worker.engine.masks.prefix import longest_prefix
from worker.engine.masks.scoring import score_variants
from worker.engine.measure import evaluate
from worker.engine.surgery import Plan, prune

FILE = results.FOLDER / "masks.json"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GOAL = 3.0
FAMILY = 10
TURN = 20
"""Masks that are scored before the other way has its turn."""

Maker = Callable[[int], onnx.ModelProto]


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


def compare(plain: Maker, ours: Maker, draws: Draws, count: int, images: Split) -> dict[str, Any]:
    """Seconds per mask of either way, turn by turn, and whether all scores are the same."""
    threads = len(os.sched_getaffinity(0))
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    wrong: dict[str, list[int]] = {"plain": [], "ours": []}
    for turn, start in enumerate(range(0, count, TURN)):
        numbers = range(start, min(start + TURN, count))
        for way in ("plain", "ours") if turn % 2 == 0 else ("ours", "plain"):
            begun = time.perf_counter()
            if way == "plain":
                for number in numbers:
                    found = evaluate(plain(number), images, 10, threads)
                    wrong[way].append(round((1 - found.top1) * found.samples))
            else:
                families = [[partial(ours, numbers[i]) for i in family] for family in draws.families(len(numbers))]
                shared = draws.prefix.tensor if draws.prefix is not None else None
                scores = score_variants(families, images, 10, shared=shared, threads=threads)
                wrong[way] += [each.wrong for each in scores]
            seconds[way].append((time.perf_counter() - begun) / len(numbers))
    ratios = np.array(seconds["plain"]) / np.array(seconds["ours"])
    return {
        "masks": count,
        "images": len(images),
        "threads": threads,
        "family": draws.family,
        "macs_in_common": draws.prefix.macs_share if draws.prefix is not None else 0.0,
        "plain_s_per_mask": float(np.median(seconds["plain"])),
        "ours_s_per_mask": float(np.median(seconds["ours"])),
        "speedup": float(np.sum(seconds["plain"]) / np.sum(seconds["ours"])),
        "speedup_low": float(ratios.min()),
        "speedup_high": float(ratios.max()),
        "same_scores": wrong["plain"] == wrong["ours"],
        "best_error": min(wrong["ours"]) / len(images),
        "errors": [each / len(images) for each in wrong["ours"]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--masks", type=int, default=100)
    parser.add_argument("--keep", type=float, default=0.5, help="share of the channels of each layer that stays")
    parser.add_argument("--others", type=int, default=20, help="masks of either other kind; no claim is made of them")
    parser.add_argument("--samples", type=int, help="so many images only; the claim needs 5,000")
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    analysis = analyze(model)
    images = _images(arguments.images, InputSpec.of(model), arguments.samples)
    kept = np.maximum(np.rint(analysis.full * arguments.keep).astype(np.int64), 1)
    targets, _ = find_targets(analysis)
    together, alone = Draws(0, FAMILY, longest_prefix(analysis, 0.5)), Draws(0)

    def channels(draws: Draws, count: int) -> dict[str, Any]:
        return compare(
            lambda number: silenced(analysis, draw_plan(analysis, kept, draws, number)),
            lambda number: prune(analysis, draw_plan(analysis, kept, draws, number)),
            draws,
            count,
            images,
        )

    def kernels(draws: Draws, count: int) -> dict[str, Any]:
        def make(number: int) -> onnx.ModelProto:
            return masked(model, dict(draw_kernels(targets, 0.5, draws, number)))

        return compare(make, make, draws, count, images)

    rows = {"feature maps": channels(together, arguments.masks)}
    if arguments.others:
        rows["feature maps, each drawn by itself"] = channels(alone, arguments.others)
        rows["kernels"] = kernels(together, arguments.others)
    first = rows["feature maps"]
    claim = results.Claim(
        f"{first['masks']} random masks of feature maps on {len(images):,} CIFAR-10 images for ResNet-56, "
        f"{arguments.keep:.0%} of the maps kept, in families of {FAMILY}: plain evaluations / ours, same scores",
        4,
        f"{first['speedup']:.2f}x, scores {'the same' if first['same_scores'] else 'differ'}",
        f">= {GOAL}x, the same",
        bool(first["same_scores"] and first["speedup"] >= GOAL and first["masks"] >= 100 and len(images) >= 5000),
    )
    results.write(FILE, {"machine": machine.describe("onnxruntime", "numpy"), "rows": rows}, [claim])
    for name, row in rows.items():
        Console().print(
            f"{name}: plain {row['plain_s_per_mask']:.2f} s, ours {row['ours_s_per_mask']:.2f} s per mask, "
            f"{row['speedup']:.2f}x ({row['speedup_low']:.2f} to {row['speedup_high']:.2f}), "
            f"scores {'the same' if row['same_scores'] else 'DIFFER'}"
        )


def _images(path: Path, spec: InputSpec, samples: int | None) -> Split:
    """All images of the archive, or some, as one split."""
    dataset = open_dataset(path, spec, DataOptions(MEAN, STD), seed=0)
    parts = (dataset.train, dataset.validation, dataset.test)
    rows, labels = (np.concatenate([getattr(part, name) for part in parts]) for name in ("rows", "labels"))
    first, order = dataset.train, np.random.default_rng(0).permutation(len(rows))[:samples]
    rows, labels = rows[order], labels[order]
    return Split(first.images, rows, labels, first.scale, first.shift, first.layout)


if __name__ == "__main__":
    main()
