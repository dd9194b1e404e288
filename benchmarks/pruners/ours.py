"""Espalier's engine on one model: half of the prunable channels of every layer, cut at random and proved.

Cutting at random instead of by magnitude is the harder test of indices, and costs the same time.
"""

import sys
from collections import defaultdict
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks import memory
from benchmarks.pruners.report import Stopwatch, say
from benchmarks.pruners.warm_up import small_graph
from benchmarks.zoo import Entry, find
from worker.engine.allocation.widths import Widths
from worker.engine.criteria import score
from worker.engine.graph import Analysis, analyze, facts, load_bundle
from worker.engine.proof import prove
from worker.engine.surgery import Plan, prune


def run(entry: Entry, variant: str) -> dict[str, Any]:
    """`variant` exact; or runtime_pass, which finds the shapes by running the model, as otherwise only happens where
    they cannot be inferred; or inexact, which also cuts channels that a LayerNormalization or a mean runs over."""
    tiny = analyze(small_graph())
    prune(tiny, half_of_every_width(tiny))
    interpreter = memory.start_peak()
    with Stopwatch() as load:
        model = load_bundle(entry.onnx_file)
    with _observation(variant), Stopwatch() as analysis_time:
        analysis = analyze(model, allow_inexact=variant == "inexact")
    plan = half_of_every_width(analysis)
    with Stopwatch() as surgery_time:
        pruned = prune(analysis, plan)
    result: dict[str, Any] = {
        "load_seconds": load.seconds,
        "analysis_seconds": analysis_time.seconds,
        "surgery_seconds": surgery_time.seconds,
        "seconds": analysis_time.seconds + surgery_time.seconds,
        "cpu_seconds": analysis_time.cpu_seconds + surgery_time.cpu_seconds,
        "interpreter_bytes": interpreter,
        "peak_bytes": memory.peak() - interpreter,
        "model_bytes": entry.model_bytes,
    }
    if variant == "runtime_pass":
        return {"status": "pruned", **result}
    with Stopwatch() as shapes_time:
        facts.observe(analysis.graph)
    kept = plan.counts(analysis)
    memory.start_peak()
    with Stopwatch() as proof_time:
        proof = prove(analysis, plan, pruned, inputs_per_size=1)
    result |= {
        "shapes_cpu_seconds": shapes_time.cpu_seconds,
        "shapes_inferred": facts._observe_statically(analysis.graph) is not None,
        "proof_seconds": proof_time.seconds,
        "proof_peak_bytes": memory.peak() - interpreter,
        "proof_error": float(proof.max_relative_error),
        "compared_tensors": proof.compared_tensors,
        "waived_nodes": len(proof.waived_nodes),
        "correct": bool(proof.passed),
        "groups": len(analysis.groups),
        "macs": analysis.macs,
        "macs_ratio": analyze(pruned).macs / analysis.macs,
        "macs_ratio_expected": int(analysis.costs.macs(kept)) / analysis.macs,
        "macs_ratio_allowed": _exactly_half(analysis) / analysis.macs,
        "pinned": _pinned_shares(analysis),
    }
    return {"status": "pruned" if proof.passed else "wrong", **result}


def half_of_every_width(analysis: Analysis) -> Plan:
    """Keep a random half of the channels of each layer, or of each set of layers whose channels go together."""
    scores = score(analysis, "random")
    widths = Widths(analysis, scores, round_to=1, min_ratio=0.0)
    counts = widths.counts(widths.round(widths.whole / 2))
    kept = {}
    for group in analysis.groups:
        kept[group.id] = np.zeros(len(group), dtype=bool)
        kept[group.id][np.argsort(-scores[group.id])[: counts[group.id]]] = True
    return Plan(kept)


def _exactly_half(analysis: Analysis) -> float:
    """The MACs if every layer could keep exactly half of its prunable channels, also of an odd number."""
    counts: Any = analysis.full / 2  # the cost table's products hold for fractions, too
    return float(analysis.costs.macs(counts))


def _observation(variant: str) -> Any:
    """With `runtime_pass` static shape inference knows nothing, as on models that it cannot follow."""
    return patch.object(facts, "_observe_statically", return_value=None) if variant == "runtime_pass" else nullcontext()


def _pinned_shares(analysis: Analysis) -> dict[str, float]:
    """Reason -> share of the MACs in layers whose own channels stay for it, largest first."""
    shares: dict[str, float] = defaultdict(float)
    for layer in analysis.layers:
        if layer.prunable_channels < layer.channels and layer.macs:
            share = layer.macs / analysis.macs * (1 - layer.prunable_channels / layer.channels)
            shares[f"{layer.pinned_reason} [{layer.op}]"] += share
    largest = sorted(shares, key=lambda reason: -shares[reason])[:6]
    return {reason: round(shares[reason], 4) for reason in largest}


if __name__ == "__main__":
    say(run(find(sys.argv[1]), *sys.argv[2:] or ["exact"]))
