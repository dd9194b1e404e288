"""What a careful reader of a report should know, said at its top."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from models_store.catalogue import Method
from models_store.documents.export_spec import MissingFile
from models_store.documents.report import BudgetVerdict, Cost, KernelReport, LatencyRow, LayerRow

_PINNED_SHARE = 0.1
_ROUNDING_GAP = 0.01
_FEWER_MACS = 0.95
_KERNEL_GAP = 0.05
_KERNELS_ON_TOP = "the budget is what channels are pruned to, and the kernels came off on top."
_OF_A_FRONT = "nsga2 looks for a front of accuracy against cost, and of what keeps the budget this did best."


def warnings(
    *,
    original: Cost,
    pruned: Cost,
    layers: tuple[LayerRow, ...],
    latency: tuple[LatencyRow, ...],
    budget: tuple[BudgetVerdict, ...],
    round_to: int,
    nodes_outside_torch: tuple[str, ...],
    methods: Collection[Method] = (),
    kernels: KernelReport | None = None,
    missing: tuple[MissingFile, ...] = (),
    zeros: tuple[str, ...] = (),
    heads: tuple[str, ...] = (),
) -> tuple[str, ...]:
    """All that apply, the gravest first. `zeros`: of padded_pools; `heads`: outputs that may be class scores."""
    why = _rounded(round_to) if round_to > 1 else ""
    if any(method.name == "nsga2" for method in methods):
        why = _OF_A_FRONT
    if _divided(kernels):
        why = _KERNELS_ON_TOP
    return (
        *(f"{file.name} could not be made: {file.reason}" for file in missing),
        *_no_gain(latency, pruned.macs / max(original.macs, 1)),
        *_pinned(layers, original.macs),
        *(text for line in budget if line.name == "macs_ratio" and len(budget) == 1 for text in _left(line, why)),
        *_other_sparsity(kernels),
        *_outside_torch(nodes_outside_torch),
        *several_heads(heads),
        *zeros,
        *reconstructed(methods),
    )


def _no_gain(latency: tuple[LatencyRow, ...], macs_ratio: float) -> Iterable[str]:
    """MACs fell and the time did not, by the rule that the tables of the report call a difference noise by."""
    if macs_ratio > _FEWER_MACS:
        return
    for row in latency:
        if not row.faster:
            doubt = "" if row.resolved else " beyond the noise"
            threads = f"{row.threads} thread{'s' if row.threads > 1 else ''}"
            yield (
                f"MACs fell to {macs_ratio:.0%} and latency did not follow{doubt}: {row.speedup:.2f} times as fast at "
                f"batch size {row.batch_size} on {threads}, 10-90 % of the rounds: "
                f"{row.speedup_low:.2f} to {row.speedup_high:.2f}."
            )


def _pinned(layers: tuple[LayerRow, ...], macs: int) -> Iterable[str]:
    pinned = [layer for layer in layers if layer.pinned_reason is not None and not layer.groups]
    share = sum(layer.macs_original for layer in pinned) / max(macs, 1)
    if share > _PINNED_SHARE:
        yield (
            f"{share:.0%} of the MACs lie in {len(pinned)} layers whose output channels cannot be pruned: "
            "the table of layers says why."
        )


def _left(budget: BudgetVerdict, why: str) -> Iterable[str]:
    """Much less remains than was allowed."""
    if why and budget.verdict == "met" and budget.goal - budget.value > _ROUNDING_GAP:
        yield f"{budget.value:.1%} of the MACs remain where {budget.goal:.1%} were allowed: {why}"


def _divided(kernels: KernelReport | None) -> bool:
    """Whether kernels took MACs with them: zeros of a mask are multiplied like any other number."""
    return kernels is not None and any(row.blocks is not None for row in kernels.rows)


def _other_sparsity(kernels: KernelReport | None) -> Iterable[str]:
    """Much more or less went than kernels.sparsity asks for: layers are small, and layouts remove in steps."""
    if kernels is None:
        return
    pruned = [row for row in kernels.rows if row.reason is None]
    if not pruned:
        yield (
            f"Nothing went where kernels.sparsity asks for {kernels.sparsity:.1%}: the table of kernels says why each "
            "convolution keeps its own. A lower sparsity or another layout may fit."
        )
        return
    gone = 1 - sum(row.weights_kept for row in pruned) / sum(row.weights for row in pruned)
    if abs(gone - kernels.sparsity) > _KERNEL_GAP:
        yield (
            f"{gone:.1%} of the weights went where kernels.sparsity asks for {kernels.sparsity:.1%}, in the "
            "convolutions that can be pruned so: the table of kernels has what each of them could lose."
        )


def _rounded(round_to: int) -> str:
    return (
        f"channel counts are multiples of {round_to} where layers are wide enough. A smaller round_to may come closer."
    )


def several_heads(names: tuple[str, ...]) -> Iterable[str]:
    """Outputs of which nothing tells which has the class scores."""
    if len(names) > 1:
        others = ", ".join(names[1:])
        yield f"The class scores were taken from output {names[0]}, the first that may have them; others are: {others}."


def reconstructed(methods: Iterable[Method]) -> Iterable[str]:
    """Methods whose paper does not say all of it."""
    for method in methods:
        if method.exactness == "reconstruction":
            yield (
                f"{method.title}: the formula of the paper is not public, and what ran is a reconstruction of it "
                f"({method.paper})."
            )


def _outside_torch(nodes: tuple[str, ...]) -> Iterable[str]:
    if nodes:
        shown = ", ".join(nodes[:10]) + (f" and {len(nodes) - 10} more" if len(nodes) > 10 else "")
        yield f"{len(nodes)} nodes have no torch form: in training ONNX Runtime ran them, without gradients: {shown}."
