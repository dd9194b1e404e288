"""A complete report as a job might leave it, with the numbers that a test is about."""

from typing import Any

from models_store.documents import report
from models_store.documents.job_spec import Budget, JobSpec

ANY = f"{'0193f2a7':0<32}"


def report_document(
    *, top1: float = 0.9, top1_before: float = 0.91, macs: int = 500, speedup: float = 2.0, proved: bool = True
) -> dict[str, Any]:
    """The original has 1,000 MACs and a latency of 2 ms at batch 1; the pruned model what is asked for."""
    summary = report.LatencySummary(p50_ms=2.0, p90_ms=2.1, p99_ms=2.2)
    faster = report.LatencySummary(p50_ms=2.0 / speedup, p90_ms=2.1 / speedup, p99_ms=2.2 / speedup)
    return report.Report(
        job_id=f"job_{ANY}",
        attempt=1,
        spec=JobSpec(model_id=f"mdl_{ANY}", dataset_id=f"dst_{ANY}", budget=Budget(macs_ratio=0.5)),
        model_name="net",
        model_sha256="3f" * 32,
        dataset_sha256="a7" * 32,
        original=report.Cost(params=400, macs=1000, flops=2000, size_bytes=4000, peak_memory_bytes=30_000_000),
        pruned=report.Cost(params=200, macs=macs, flops=2 * macs, size_bytes=2000, peak_memory_bytes=20_000_000),
        budget=(report.BudgetVerdict(name="macs_ratio", goal=0.5, value=macs / 1000, verdict="met"),),
        accuracy=report.AccuracyRows(
            original=report.Accuracy(top1=top1_before, top5=0.99, loss=0.3, samples=1000),
            after_cut=report.Accuracy(top1=0.5, top5=0.9, loss=2.0, samples=1000),
            final=report.Accuracy(top1=top1, top5=0.99, loss=0.4, samples=1000),
            changed_labels=0.05,
        ),
        latency=(
            report.LatencyRow(
                batch_size=1,
                threads=1,
                rounds=30,
                original=summary,
                pruned=faster,
                speedup=speedup,
                speedup_low=speedup * 0.95,
                speedup_high=speedup * 1.05,
                noise=0.03,
            ),
        ),
        layers=(),
        proof=report.Proof(passed=proved, tolerance=1e-4, max_relative_error=1e-7, compared_tensors=3, runs=()),
        parity=None,
        training=None,
        warnings=(),
        machine=report.Machine(cpu="test", cores=2, memory_bytes=2**33, gpu=None, sandbox="T0", versions={}),
        artifacts=(),
        stage_seconds={"prune": 1.5},
    ).model_dump(mode="json")
