"""prune: cut the channels, then the kernels out of the graph, and prove that nothing else changed."""

from __future__ import annotations

import onnx

from models_store.documents.base import Document
from models_store.documents.kernels import Kernels
from models_store.documents.report import Cost, KernelReport, LayerRow, MaskSearch, Proof, ProofRun
from worker.engine import proof as engine_proof
from worker.engine.graph import analyze, load_model
from worker.engine.surgery import Plan
from worker.engine.surgery import prune as cut
from worker.engine.verification import unprovable_units
from worker.runner.cost import cost
from worker.runner.diagnosis import BrokenPromise
from worker.runner.kernels import prune_kernels
from worker.runner.stages import estimate
from worker.runner.workbench import Stage, Workbench


class Pruned(Document):
    """The cut model: cost, layers beside the original's, and the proof of the surgery."""

    cost: Cost
    layers: tuple[LayerRow, ...]
    proof: Proof
    kernels: KernelReport | None = None
    kernel_masks: MaskSearch | None = None


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
    pruned = Pruned(
        cost=cost(chosen.macs, chosen.params, bench.cut_path),
        layers=_layers(bench, plan),
        proof=_proof(proof),
    )
    return pruned if bench.spec.kernels is None else _without_kernels(bench, pruned, bench.spec.kernels)


def _without_kernels(bench: Workbench, pruned: Pruned, wanted: Kernels) -> Pruned:
    """The same once kernels are gone, too. Costs are those of the graph as it is: zeros in dense weights cost as much
    as other weights."""
    kernels, proof, masks = prune_kernels(bench, wanted)
    after = analyze(load_model(bench.cut_path))
    cheaper = {layer.name: layer for layer in after.layers}
    layers = tuple(
        row.model_copy(update={"macs_pruned": cheaper[row.name].macs, "params_pruned": cheaper[row.name].params})
        if row.name in cheaper
        else row
        for row in pruned.layers
    )
    return Pruned(
        cost=cost(after.macs, after.params, bench.cut_path),
        layers=layers,
        proof=pruned.proof if proof is None else _both(pruned.proof, _proof(proof)),
        kernels=kernels,
        kernel_masks=masks,
    )


def _both(channels: Proof, kernels: Proof) -> Proof:
    """The proofs of two cuts, one after the other."""
    return channels.model_copy(
        update={
            "passed": channels.passed and kernels.passed,
            "max_relative_error": max(channels.max_relative_error, kernels.max_relative_error),
            "compared_tensors": channels.compared_tensors + kernels.compared_tensors,
            "runs": (*channels.runs, *kernels.runs),
            "excused": max(channels.excused, kernels.excused),
        }
    )


def _cut(bench: Workbench) -> tuple[Plan, engine_proof.Proof]:
    analysis = bench.analysis_to_cut()
    plan = bench.read(estimate.STAGE).plan(analysis)
    pruned = cut(analysis, plan)
    onnx.save(pruned, bench.cut_path)
    bench.voice.progress(0.3)
    return plan, engine_proof.prove(analysis, plan, pruned, seed=bench.spec.seed, real_inputs=bench.real_inputs())


def _leave_unprovable(bench: Workbench, plan: Plan) -> bool:
    """Take the channels whose cut cannot be proved out of the estimate; False where none is to blame by itself."""
    units = unprovable_units(bench.analysis_to_cut(), plan, seed=bench.spec.seed)
    if not units:
        return False
    bench.voice.log(f"{len(units)} channels stay: their removal could not be proved harmless", "warning")
    bench.may_spread = False  # this stage began with an estimate that is no longer there
    bench.leave_alone(units, "the removal of these channels could not be proved harmless")
    bench.write(estimate.STAGE, estimate.run(bench))
    return True


def _layers(bench: Workbench, plan: Plan) -> tuple[LayerRow, ...]:
    """Each layer beside what it was in the original, before any round of a schedule."""
    analysis = bench.analysis
    wholes = {layer.name: layer for layer in bench.whole_analysis.layers}
    after = analysis.layers_under(plan.counts(analysis))
    return tuple(
        LayerRow(
            name=original.name,
            op=original.op,
            groups=original.groups,
            channels_original=wholes[original.name].channels,
            channels_pruned=pruned.channels,
            macs_original=wholes[original.name].macs,
            macs_pruned=pruned.macs,
            params_original=wholes[original.name].params,
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
        given_choices=proof.given_choices,
        excused=proof.excused,
    )


STAGE = Stage("prune", Pruned, run)
