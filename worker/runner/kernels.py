"""The kernels of the cut model: zeros by a mask, or the grouped layout with its proof."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx

from models_store.documents.kernels import Kernels
from models_store.documents.report import KernelReport, KernelRow, MaskSearch
from worker.engine import proof as engine_proof
from worker.engine.graph import analyze, load_model
from worker.engine.graph.onnx_graph import OnnxGraph
from worker.engine.kernels import Skipped, Target, find_targets, group_kernels
from worker.engine.kernels.grouped import GroupedLayer
from worker.engine.kernels.layouts import mask_of
from worker.engine.kernels.layouts.pattern import PatternOptions
from worker.engine.kernels.proof import masked, prove_layout
from worker.engine.kernels.targets import importance
from worker.engine.masks.files import save_masks
from worker.runner.diagnosis import BrokenPromise
from worker.runner.random_masks import draw_kernels, spread
from worker.runner.workbench import Workbench

NO_GAIN = (
    "The zeros lie in dense weights: MACs, file size and latency are those of the dense network, as ordinary runtimes "
    "multiply zeros like any other number. The grouped layout gains time."
)


def prune_kernels(
    bench: Workbench, wanted: Kernels
) -> tuple[KernelReport, engine_proof.Proof | None, MaskSearch | None]:
    """Rewrite the cut model, and prove a grouped layout against the masked network; masks are left for training."""
    model = load_model(bench.cut_path)
    if wanted.layout == "grouped":
        return *_group(bench, model, wanted), None
    report, search = _mask(bench, model, wanted)
    return report, None, search


def _group(bench: Workbench, model: onnx.ModelProto, wanted: Kernels) -> tuple[KernelReport, engine_proof.Proof]:
    for fold in (True, False):
        grouped = group_kernels(
            model,
            wanted.sparsity,
            blocks=wanted.blocks,
            criterion=wanted.criterion,
            exclude=bench.spec.pruning.exclude,
            seed=bench.spec.seed,
            fold=fold,
        )
        proof = prove_layout(model, grouped, seed=bench.spec.seed, real_inputs=bench.real_inputs())
        if proof.passed:
            break
        bench.voice.log("channels stay in their order: folding the blocks' order could not be proved", "warning")
    if not proof.passed:
        raise BrokenPromise(
            "layout_proof_failed",
            "The grouped layout does not compute what the network does without the removed kernels: relative error "
            f"{proof.max_relative_error:.2e}, tolerance {proof.tolerance:.0e}.",
        )
    onnx.save(grouped.model, bench.cut_path)
    rows = [*(_grouped_row(layer) for layer in grouped.layers), *(_whole(model, s) for s in grouped.skipped)]
    return _report(bench, wanted, rows, ""), proof


def _grouped_row(layer: GroupedLayer) -> KernelRow:
    size = int(np.prod(layer.target.shape[2:]))
    kept = int(layer.mask.sum())
    return KernelRow(
        name=layer.target.name,
        kernels=layer.target.kernels,
        kernels_kept=kept,
        weights=layer.target.kernels * size,
        weights_kept=kept * size,
        importance_kept=layer.importance_kept,
        blocks=layer.blocks,
        inputs_per_block=layer.inputs_per_block,
    )


def _mask(bench: Workbench, model: onnx.ModelProto, wanted: Kernels) -> tuple[KernelReport, MaskSearch | None]:
    analysis = analyze(model)
    targets, skipped = find_targets(analysis, bench.spec.pruning.exclude)
    options = PatternOptions(sparsity=wanted.sparsity, patterns=wanted.patterns)
    drawn, search = None, None
    if bench.spec.random_masks is not None and bench.spec.random_masks.of_kernels:
        drawn, search = draw_kernels(bench, bench.spec.random_masks, analysis, targets, wanted.sparsity)
    masks: dict[str, np.ndarray] = {}
    rows: list[KernelRow] = []
    for target in targets:
        scores = importance(analysis.graph.array(target.weight), wanted.criterion)
        mask = mask_of(wanted.layout, scores, options) if drawn is None else spread(drawn[target.weight], scores)
        if isinstance(mask, str):
            skipped.append(Skipped(target.name, mask))
        else:
            masks[target.weight] = np.ascontiguousarray(mask)
            rows.append(_masked_row(target, mask, scores))
    onnx.save(masked(analysis.graph.model, masks), bench.cut_path)
    save_masks(bench.masks_path, masks)
    rows += [_whole(model, layer) for layer in skipped]
    return _report(bench, wanted, rows, NO_GAIN), search


def _masked_row(target: Target, mask: np.ndarray, scores: np.ndarray) -> KernelRow:
    whole = mask.reshape(target.outputs, target.inputs, -1)
    return KernelRow(
        name=target.name,
        kernels=target.kernels,
        kernels_kept=int(whole.any(axis=2).sum()),
        weights=mask.size,
        weights_kept=int(mask.sum()),
        importance_kept=float(scores[mask].sum() / max(scores.sum(), 1e-300)),
    )


def _whole(model: onnx.ModelProto, skipped: Skipped) -> KernelRow:
    """The row of a convolution that keeps all of its kernels."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    node = next((n for n in model.graph.node if skipped.name in (n.name, *n.output)), None)
    dims = stored[node.input[1]].dims if node is not None and node.input[1] in stored else ()
    weights = int(np.prod(dims)) if dims else 0
    kernels = int(np.prod(dims[:2])) if dims else 0
    return KernelRow(
        name=skipped.name,
        kernels=kernels,
        kernels_kept=kernels,
        weights=weights,
        weights_kept=weights,
        importance_kept=1.0,
        reason=skipped.reason,
    )


def _report(bench: Workbench, wanted: Kernels, rows: Iterable[KernelRow], note: str) -> KernelReport:
    return KernelReport(
        layout=wanted.layout,
        sparsity=wanted.sparsity,
        rows=tuple(rows),
        conv_weights_original=conv_weights(bench.original)[0],
        conv_weights_kept=conv_weights(load_model(bench.cut_path))[1],
        note=note,
    )


def conv_weights(model: onnx.ModelProto) -> tuple[int, int]:
    """Weights of all convolutions of the main graph, without biases: how many are stored, how many are not zero."""
    graph = OnnxGraph(model)
    names = {node.input[1] for node in model.graph.node if node.op_type == "Conv"} & set(graph.constants)
    stored = [graph.array(name) for name in names]
    return sum(value.size for value in stored), sum(int(np.count_nonzero(value)) for value in stored)
