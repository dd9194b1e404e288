"""The warnings of a report, each where it applies and only there."""

from typing import Any

import pytest

from models_store.catalogue import find
from models_store.documents.export_spec import MissingFile
from models_store.documents.report import (
    BudgetVerdict,
    Cost,
    KernelReport,
    KernelRow,
    LatencyRow,
    LatencySummary,
    LayerRow,
)
from worker.runner.findings import warnings

TIMES = LatencySummary(p50_ms=10, p90_ms=11, p99_ms=12)


def _latency(speedup: float, noise: float = 0.05, band: tuple[float, float] | None = None) -> LatencyRow:
    low, high = band or (speedup - noise, speedup + noise)
    return LatencyRow(
        batch_size=1,
        threads=1,
        rounds=30,
        original=TIMES,
        pruned=TIMES,
        speedup=speedup,
        speedup_low=low,
        speedup_high=high,
        noise=noise,
    )


def _layer(macs: int, pinned_reason: str | None = None) -> LayerRow:
    return LayerRow(
        name="conv",
        op="Conv",
        groups=() if pinned_reason else (0,),
        channels_original=64,
        channels_pruned=32,
        macs_original=macs,
        macs_pruned=macs // 2,
        params_original=100,
        params_pruned=50,
        pinned_reason=pinned_reason,
    )


def _kernels(layout: str, kept: float, sparsity: float = 0.5, whole: int = 0) -> KernelReport:
    """A convolution of 1000 weights that keeps a share of them, and one that keeps all of its own."""
    facts: dict[str, Any] = {"kernels_kept": 100, "importance_kept": 0.9, "blocks": 4 if layout == "grouped" else None}
    pruned = KernelRow(name="conv", kernels=100, weights=1000, weights_kept=round(1000 * kept), **facts)
    first = KernelRow(
        name="first", kernels=1, kernels_kept=1, weights=whole, weights_kept=whole, importance_kept=1, reason="narrow"
    )
    return KernelReport(
        layout=layout,
        sparsity=sparsity,
        rows=(pruned, first) if kept < 1 else (first,),
        conv_weights_original=2000,
        conv_weights_kept=1000,
    )


def _warnings(**changes: Any) -> tuple[str, ...]:
    facts: dict[str, Any] = {
        "original": Cost(params=100, macs=1000, flops=2000, size_bytes=400),
        "pruned": Cost(params=50, macs=495, flops=990, size_bytes=200),
        "layers": (_layer(1000),),
        "latency": (_latency(2.0),),
        "budget": (BudgetVerdict(name="macs_ratio", goal=0.5, value=0.495, verdict="met"),),
        "round_to": 8,
        "nodes_outside_torch": (),
    }
    return warnings(**facts | changes)


def test_nothing_to_say() -> None:
    assert _warnings() == ()


def test_a_file_that_is_missing_comes_first() -> None:
    missing = MissingFile(name="pruned.int8.onnx", kind="int8", reason="No calibration.")
    first, _ = _warnings(missing=(missing,), latency=(_latency(1.0),))
    assert first == "pruned.int8.onnx could not be made: No calibration."


def test_latency_did_not_follow() -> None:
    unclear, slower = _warnings(latency=(_latency(2.0), _latency(1.04), _latency(0.8)))
    assert "latency did not follow beyond the noise: 1.04 times as fast" in unclear
    assert slower == (
        "MACs fell to 50% and latency did not follow: 0.80 times as fast at batch size 1 on 1 thread, "
        "10-90 % of the rounds: 0.75 to 0.85."
    )


def test_what_the_tables_call_noise_is_warned_of_and_nothing_else() -> None:
    clear, noise = _latency(1.81, noise=0.94, band=(1.64, 2.32)), _latency(1.14, noise=0.08, band=(0.97, 1.38))
    assert clear.resolved
    assert not noise.resolved
    (warning,) = _warnings(latency=(clear, noise))
    assert "latency did not follow beyond the noise: 1.14 times as fast" in warning


def test_latency_need_not_follow_where_macs_stayed() -> None:
    pruned = Cost(params=100, macs=1000, flops=2000, size_bytes=400)
    assert _warnings(latency=(_latency(1.0),), pruned=pruned) == ()


def test_pinned_layers() -> None:
    (warning,) = _warnings(layers=(_layer(800), _layer(200, "graph output")))
    assert warning.startswith("20% of the MACs lie in 1 layers")


def test_rounding() -> None:
    budget = BudgetVerdict(name="macs_ratio", goal=0.5, value=0.42, verdict="met")
    (warning,) = _warnings(budget=(budget,))
    assert warning.startswith("42.0% of the MACs remain where 50.0% were allowed")
    assert _warnings(budget=(budget,), round_to=1) == ()


def test_nodes_outside_torch() -> None:
    (warning,) = _warnings(nodes_outside_torch=tuple(f"n{i}" for i in range(12)))
    assert "12 nodes" in warning
    assert "n9 and 2 more" in warning


def test_several_outputs_that_may_be_the_class_scores() -> None:
    assert _warnings(heads=("scores",)) == ()
    (warning,) = _warnings(heads=("main", "aux1", "aux2"))
    assert (
        warning == "The class scores were taken from output main, the first that may have them; others are: aux1, aux2."
    )


def test_kernels_come_off_on_top_of_the_budget() -> None:
    budget = (BudgetVerdict(name="macs_ratio", goal=0.5, value=0.3, verdict="met"),)
    (rounded,), (on_top,) = _warnings(budget=budget), _warnings(budget=budget, kernels=_kernels("grouped", 0.5))
    assert "multiples of 8" in rounded
    assert on_top == (
        "30.0% of the MACs remain where 50.0% were allowed: "
        "the budget is what channels are pruned to, and the kernels came off on top."
    )
    assert _warnings(budget=budget, round_to=1) == ()


def test_a_search_for_a_front_may_stay_below_the_budget() -> None:
    budget = (BudgetVerdict(name="macs_ratio", goal=0.5, value=0.3, verdict="met"),)
    (warning,) = _warnings(budget=budget, methods=[find("allocation", "nsga2")])
    assert warning == (
        "30.0% of the MACs remain where 50.0% were allowed: "
        "nsga2 looks for a front of accuracy against cost, and of what keeps the budget this did best."
    )


@pytest.mark.parametrize("layout", ["free", "strided", "n_m", "pattern"])
def test_zeros_in_dense_weights_are_no_reason_for_fewer_macs(layout: str) -> None:
    budget = (BudgetVerdict(name="macs_ratio", goal=0.5, value=0.46, verdict="met"),)
    (warning,) = _warnings(budget=budget, kernels=_kernels(layout, 0.5))
    assert "multiples of 8" in warning
    assert _warnings(budget=budget, kernels=_kernels(layout, 0.5), round_to=1) == ()


def test_a_kernel_sparsity_that_was_not_had() -> None:
    (far,) = _warnings(kernels=_kernels("grouped", 0.25, sparsity=0.999, whole=500))
    assert far.startswith("75.0% of the weights went where kernels.sparsity asks for 99.9%")
    (beyond,) = _warnings(kernels=_kernels("pattern", 0.4, sparsity=0.5))
    assert beyond.startswith("60.0% of the weights went where kernels.sparsity asks for 50.0%")
    (nothing,) = _warnings(kernels=_kernels("strided", 1, sparsity=0.99, whole=500))
    assert nothing.startswith("Nothing went where kernels.sparsity asks for 99.0%")
    assert _warnings(kernels=_kernels("grouped", 0.47, whole=500)) == ()
