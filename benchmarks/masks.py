"""Scoring 100 random masks of ResNet-56 on 5,000 CIFAR-10 images: as jobs do it, against plain evaluations in a loop.

`python -m benchmarks.masks MODEL.onnx IMAGES` writes results/masks.json: MODEL from benchmarks.cifar_resnet, IMAGES an
archive with one folder of images per class. A plain evaluation is `worker.engine.measure.evaluate` of the network with
zeros in place of the masked filters: ONNX Runtime on all cores, 64 images at a time. Both are timed in turn, over a
few masks at a time, so that what disturbs one disturbs the other. Jobs draw masks in families of ten that have the
network's first half in common; masks drawn each by itself, as in the paper, are timed beside them, and so are kernels.
Turns are kept one by one: what was stopped goes on where it was, with the same model and images.
"""

import argparse
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

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
MASKS, IMAGES = 100, 5000
KEPT = 0.5
"""Of the channels of each layer."""
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


class Turn(NamedTuple):
    """Seconds per mask and images misclassified, mask by mask, of either way."""

    plain_s: float
    ours_s: float
    plain_wrong: list[int]
    ours_wrong: list[int]


def turns(plain: Maker, ours: Maker, draws: Draws, count: int, images: Split, known: list[Turn]) -> Iterator[Turn]:
    """The turns that are not known yet."""
    threads = len(os.sched_getaffinity(0))
    for turn, start in list(enumerate(range(0, count, TURN)))[len(known) :]:
        numbers = range(start, min(start + TURN, count))
        seconds: dict[str, float] = {}
        wrong: dict[str, list[int]] = {"plain": [], "ours": []}
        for way in ("plain", "ours") if turn % 2 == 0 else ("ours", "plain"):
            begun = time.perf_counter()
            if way == "plain":
                for number in numbers:
                    found = evaluate(plain(number), images, 10, threads)
                    wrong[way].append(round((1 - found.top1) * found.samples))
            else:
                families = [[partial(ours, numbers[i]) for i in family] for family in draws.families(len(numbers))]
                scores = score_variants(families, images, 10, shared=draws.prefix, threads=threads)
                wrong[way] += [each.wrong for each in scores]
            seconds[way] = (time.perf_counter() - begun) / len(numbers)
        yield Turn(seconds["plain"], seconds["ours"], wrong["plain"], wrong["ours"])


def summary(found: list[Turn], draws: Draws, images: Split) -> dict[str, Any]:
    plain, ours = np.array([t.plain_s for t in found]), np.array([t.ours_s for t in found])
    wrong = [each for turn in found for each in turn.ours_wrong]
    return {
        "masks": len(wrong),
        "images": len(images),
        "threads": len(os.sched_getaffinity(0)),
        "family": draws.family,
        "macs_in_common": draws.prefix.macs_share if draws.prefix is not None else 0.0,
        "plain_s_per_mask": float(np.median(plain)),
        "ours_s_per_mask": float(np.median(ours)),
        "speedup": float(np.sum(plain) / np.sum(ours)),
        "speedup_low": float((plain / ours).min()),
        "speedup_high": float((plain / ours).max()),
        "same_scores": all(turn.plain_wrong == turn.ours_wrong for turn in found),
        "best_error": min(wrong) / len(images),
        "errors": [each / len(images) for each in wrong],
        "turns": [turn._asdict() for turn in found],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--masks", type=int, default=MASKS)
    parser.add_argument("--others", type=int, default=20, help="masks of either other kind; no claim is made of them")
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    analysis = analyze(model)
    images = _images(arguments.images, InputSpec.of(model))
    kept = np.maximum(np.rint(analysis.full * KEPT).astype(np.int64), 1)
    targets, _ = find_targets(analysis)
    together, alone = Draws(0, FAMILY, longest_prefix(analysis, 0.5)), Draws(0)

    def silence(draws: Draws, number: int) -> onnx.ModelProto:
        return silenced(analysis, draw_plan(analysis, kept, draws, number))

    def cut(draws: Draws, number: int) -> onnx.ModelProto:
        return prune(analysis, draw_plan(analysis, kept, draws, number))

    def kernels(draws: Draws, number: int) -> onnx.ModelProto:
        return masked(model, dict(draw_kernels(targets, 0.5, draws, number)))

    wanted = {
        "feature maps": (silence, cut, together, arguments.masks),
        "feature maps, each drawn by itself": (silence, cut, alone, arguments.others),
        "kernels": (kernels, kernels, together, arguments.others),
    }
    of = hashlib.sha256(arguments.model.read_bytes() + arguments.images.read_bytes()).hexdigest()
    kept_before = results.read(FILE)
    rows = kept_before.get("rows", {}) if kept_before.get("sha256") == of else {}
    for name, (plain, ours, draws, count) in wanted.items():
        found = [Turn(**turn) for turn in rows.get(name, {}).get("turns", [])]
        for turn in turns(partial(plain, draws), partial(ours, draws), draws, count, images, found):
            found.append(turn)
            rows[name] = summary(found, draws, images)
            contents = {"machine": machine.describe("onnxruntime", "numpy"), "sha256": of, "rows": rows}
            results.write(FILE, contents, claims(rows))
    for name, row in rows.items():
        Console().print(
            f"{name}: plain {row['plain_s_per_mask']:.2f} s, ours {row['ours_s_per_mask']:.2f} s per mask, "
            f"{row['speedup']:.2f}x ({row['speedup_low']:.2f} to {row['speedup_high']:.2f}), "
            f"scores {'the same' if row['same_scores'] else 'DIFFER'}"
        )


def claims(rows: dict[str, Any]) -> list[results.Claim]:
    first = rows["feature maps"]
    return [
        results.Claim(
            f"{first['masks']} random masks of feature maps on {first['images']:,} CIFAR-10 images for ResNet-56, half "
            f"of the maps kept, in families of {FAMILY}: plain evaluations / ours, same scores",
            4,
            f"{first['speedup']:.2f}x ({first['speedup_low']:.2f} to {first['speedup_high']:.2f} by turn), scores "
            f"{'the same' if first['same_scores'] else 'differ'}",
            f">= {GOAL}x, the same, 100 masks",
            bool(
                first["same_scores"]
                and first["speedup"] >= GOAL
                and first["masks"] >= MASKS
                and first["images"] >= IMAGES
            ),
        )
    ]


def _images(path: Path, spec: InputSpec) -> Split:
    """All images of the archive as one split."""
    dataset = open_dataset(path, spec, DataOptions(MEAN, STD), seed=0)
    parts = (dataset.train, dataset.validation, dataset.test)
    rows, labels = (np.concatenate([getattr(part, name) for part in parts]) for name in ("rows", "labels"))
    first, order = dataset.train, np.random.default_rng(0).permutation(len(rows))
    rows, labels = rows[order], labels[order]
    return Split(first.images, rows, labels, first.scale, first.shift, first.layout)


if __name__ == "__main__":
    main()
