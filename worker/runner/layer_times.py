"""Milliseconds of every layer by itself, at the widths that it had and that it has."""

from __future__ import annotations

import time
from dataclasses import replace

from models_store.documents.report import LayerRow
from worker.engine.allocation.latency_table import Axis, layer_shapes
from worker.engine.graph import load_model
from worker.engine.graph.analysis import Counts
from worker.engine.graph.onnx_graph import attribute, node_label
from worker.engine.graph.runtime import RUNTIME_ERRORS
from worker.engine.measure.layer_times import LayerShape, layer_times
from worker.runner.stages import estimate, export
from worker.runner.workbench import Workbench

MAX_SECONDS = 120
"""After which no further layer is begun."""

Times = dict[str, tuple[float | None, float | None]]
_Widths = tuple[int, int]


def times_of_layers(bench: Workbench) -> Times:
    """Of one sample, original and pruned, by the layer's name; None where it cannot be run by itself."""
    analysis, whole, threads = bench.analysis, bench.whole_analysis, bench.spec.measuring.threads
    originals = {node_label(whole.graph.nodes[node]): (s, i, o) for node, s, i, o in layer_shapes(whole, batch=1)}
    kept = bench.read(estimate.STAGE).plan(analysis).counts(analysis)
    groups = _groups_of_the_pruned(bench)
    found: Times = {}
    known: dict[tuple[LayerShape, LayerShape, _Widths, _Widths], tuple[float | None, float | None]] = {}
    until = time.monotonic() + MAX_SECONDS
    for node, shape, inputs, outputs in layer_shapes(analysis, batch=1):
        name = node_label(analysis.graph.nodes[node])
        original, inputs_before, outputs_before = originals[name]
        before = _widths(original, inputs_before, outputs_before, whole.full)
        after = _widths(shape, inputs, outputs, kept)
        regrouped = shape if shape.group == 0 or name not in groups else replace(shape, group=groups[name])
        key = original, regrouped, before, after
        if key not in known:
            if time.monotonic() > until:
                bench.voice.log(f"layers were timed for {MAX_SECONDS} s: the rest of them has no time", "warning")
                break
            known[key] = _measured(*key, threads)
        found[name] = known[key]
    return found


def with_times(rows: tuple[LayerRow, ...], times: Times) -> tuple[LayerRow, ...]:
    return tuple(
        row.model_copy(update=dict(zip(("time_original_ms", "time_pruned_ms"), times[row.name], strict=True)))
        if row.name in times
        else row
        for row in rows
    )


def _widths(shape: LayerShape, inputs: Axis, outputs: Axis, kept: Counts) -> _Widths:
    into = int(inputs.size(kept))
    return into, into * shape.multiplier if shape.group == 0 else int(outputs.size(kept))


def _measured(
    original: LayerShape, pruned: LayerShape, before: _Widths, after: _Widths, threads: int
) -> tuple[float | None, float | None]:
    """In turn where the two differ in nothing but their widths."""
    try:
        if original == pruned:
            first, second = layer_times(original, [before, after], threads)
        else:
            (first,), (second,) = layer_times(original, [before], threads), layer_times(pruned, [after], threads)
    except RUNTIME_ERRORS:
        return None, None
    return first, second


def _groups_of_the_pruned(bench: Workbench) -> dict[str, int]:
    """How many groups each convolution has that kernels were taken out of; empty for a job that took none."""
    if bench.spec.kernels is None:
        return {}
    nodes = load_model(bench.folder.out / export.NAME).graph.node
    return {node_label(node): int(attribute(node, "group", 1)) for node in nodes if node.op_type == "Conv"}
