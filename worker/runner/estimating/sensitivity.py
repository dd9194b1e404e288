"""sensitivity: every set of coupled layers cut alone, at several ratios."""

from __future__ import annotations

from typing import Literal

import numpy as np

from models_store.documents.base import Document
from models_store.documents.estimate_report import CutAlone, LayerSensitivity
from worker.engine.errors import EngineError
from worker.engine.graph import Analysis
from worker.engine.graph.onnx_graph import node_label
from worker.engine.probe import (
    Images,
    Probe,
    Sensitivity,
    importance_lost,
    measure_sensitivity,
    some_images,
    some_noise,
)
from worker.runner.stages.estimate import channel_scores
from worker.runner.workbench import Stage, Workbench

NOISE = 2
"""Random inputs where there are no images."""


class Sensitivities(Document):
    """What was measured, on what, and what it is for the original."""

    measure: Literal["output_change", "importance"]
    measured_on: str
    original_top1: float | None
    layers: tuple[LayerSensitivity, ...]
    warnings: tuple[str, ...] = ()


def run(bench: Workbench) -> Sensitivities:
    analysis, scores, keep = bench.analysis, channel_scores(bench), bench.estimated.keep_ratios
    try:
        images = images_of(bench)
        probe = Probe(analysis, images)
        original = probe.original()
    except EngineError as error:
        warning = f"The network could not be run with masks, so losses are shares of importance: {error.message}"
        return Sensitivities(
            measure="importance",
            measured_on="the weights",
            original_top1=None,
            layers=_layers(analysis, importance_lost(analysis, scores, keep)),
            warnings=(warning,),
        )
    return Sensitivities(
        measure="output_change",
        measured_on=f"{len(images)} {'validation images' if images.kind == 'images' else images.kind}",
        original_top1=original.top1,
        layers=_layers(analysis, measure_sensitivity(analysis, scores, probe, keep, bench.voice.progress)),
    )


def images_of(bench: Workbench) -> Images:
    """Validation images of the job's dataset, or random inputs."""
    if bench.dataset is None:
        return some_noise(bench.analysis, NOISE, bench.work.seed)
    split, classes = bench.dataset.validation, len(bench.dataset.classes)
    return some_images(bench.analysis, split, bench.estimated.images, classes, bench.work.seed)


def _layers(analysis: Analysis, found: tuple[Sensitivity, ...]) -> tuple[LayerSensitivity, ...]:
    rows = []
    for sensitivity in found:
        groups = analysis.widths[sensitivity.width]
        names = dict.fromkeys(
            node_label(analysis.graph.nodes[source.node]) for g in groups for source in analysis.groups[g].sources
        )
        whole = sum(len(analysis.groups[g]) for g in groups)
        counts = [_counts(analysis, sensitivity.width, units / whole) for units in sensitivity.units]
        without = _counts(analysis, sensitivity.width, 0.0)
        top1 = sensitivity.top1 or [None] * len(counts)
        cuts = tuple(
            CutAlone(
                keep_ratio=units / whole,
                macs_ratio=int(analysis.costs.macs(kept)) / max(analysis.macs, 1),
                loss=loss,
                top1=right,
            )
            for units, kept, loss, right in zip(sensitivity.units, counts, sensitivity.loss, top1, strict=True)
        )
        rows.append(
            LayerSensitivity(
                layers=tuple(names),
                channels=sum(len(analysis.groups[g]) * analysis.groups[g].width for g in groups),
                macs_share=1 - int(analysis.costs.macs(without)) / max(analysis.macs, 1),
                cuts=cuts,
            )
        )
    return tuple(rows)


def _counts(analysis: Analysis, width: int, share: float) -> np.ndarray:
    """Units kept of each group when one width keeps a share of its own, for counting."""
    counts = analysis.full.copy()
    for group in analysis.widths[width]:
        counts[group] = round(share * len(analysis.groups[group]))
    return counts


STAGE = Stage("sensitivity", Sensitivities, run)
