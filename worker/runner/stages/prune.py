"""prune: cut the channels out of the graph, and prove that nothing else changed."""

from __future__ import annotations

import onnx

from models_store.documents.base import Document
from models_store.documents.report import Cost, LayerRow, Proof, ProofRun
from worker.engine import proof as engine_proof
from worker.engine.graph import Analysis
from worker.engine.surgery import Plan
from worker.engine.surgery import prune as cut
from worker.engine.verification import unprovable_units
from worker.runner.cost import cost
from worker.runner.diagnosis import BrokenPromise
from worker.runner.stages import estimate
from worker.runner.workbench import Stage, Workbench


class Pruned(Document):
    """The cut model: cost, layers beside the original's, and the proof of the surgery."""

    cost: Cost
    layers: tuple[LayerRow, ...]
    proof: Proof


def run(bench: Workbench) -> Pruned:
    plan, proof = _cut(bench)
    if not proof.passed and _leave_unprovable(bench, plan):
        plan, proof = _cut(bench)
    if not proof.passed:
        raise BrokenPromise(
            "proof_failed",
            "The pruned graph does not compute what the original does without the removed channels: "
            f"relative error {proof.max_relative_error:.2e} over {proof.compared_tensors} tensors, "
            f"tolerance {proof.tolerance:.0e}.",
        )
    chosen = bench.read(estimate.STAGE)
    return Pruned(
        cost=cost(chosen.macs, chosen.params, bench.cut_path),
        layers=_layers(bench.analysis, plan),
        proof=_proof(proof),
    )


def _cut(bench: Workbench) -> tuple[Plan, engine_proof.Proof]:
    plan = bench.read(estimate.STAGE).plan(bench.analysis)
    pruned = cut(bench.analysis, plan)
    onnx.save(pruned, bench.cut_path)
    bench.voice.progress(0.3)
    return plan, engine_proof.prove(bench.analysis, plan, pruned, seed=bench.spec.seed, real_inputs=bench.real_inputs())


def _leave_unprovable(bench: Workbench, plan: Plan) -> bool:
    """Take the channels whose cut cannot be proved out of the estimate; False where none is to blame by itself."""
    units = unprovable_units(bench.analysis, plan, seed=bench.spec.seed)
    if not units:
        return False
    bench.voice.log(f"{len(units)} channels stay: their removal could not be proved harmless", "warning")
    bench.leave_alone(units, "the removal of these channels could not be proved harmless")
    bench.write(estimate.STAGE, estimate.run(bench))
    return True


def _layers(analysis: Analysis, plan: Plan) -> tuple[LayerRow, ...]:
    after = analysis.layers_under(plan.counts(analysis))
    return tuple(
        LayerRow(
            name=original.name,
            op=original.op,
            groups=original.groups,
            channels_original=original.channels,
            channels_pruned=pruned.channels,
            macs_original=original.macs,
            macs_pruned=pruned.macs,
            params_original=original.params,
            params_pruned=pruned.params,
            pinned_reason=original.pinned_reason,
        )
        for original, pruned in zip(analysis.layers, after, strict=True)
    )


def _proof(proof: engine_proof.Proof) -> Proof:
    return Proof(
        passed=proof.passed,
        tolerance=proof.tolerance,
        max_relative_error=proof.max_relative_error,
        compared_tensors=proof.compared_tensors,
        runs=tuple(
            ProofRun(input_shapes=run.input_shapes, max_relative_error=run.max_relative_error) for run in proof.runs
        ),
        waived_nodes=proof.waived_nodes,
    )


STAGE = Stage("prune", Pruned, run)
