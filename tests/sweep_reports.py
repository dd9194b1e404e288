"""The report of a sweep, for those who show one."""

from models_store.documents.job import JobState
from models_store.documents.job_spec import NEW_JOB, Budget
from models_store.documents.report import (
    Accuracy,
    BudgetVerdict,
    Cost,
    LatencyRow,
    LatencySummary,
    Machine,
)
from models_store.documents.sweep_report import Measured, SweepPoint, SweepReport

UNREACHABLE = "the smallest network that the job may make takes longer"


def sweep_report() -> SweepReport:
    """Three points: one keeps its budget, one asks for a latency that nothing has, one failed."""
    budgets = (Budget(macs_ratio=0.5), Budget(latency_ms=1e-9), Budget(macs_ratio=0.3))
    spec = NEW_JOB.validate_python(
        {
            "kind": "sweep",
            "model_id": f"mdl_{1:032x}",
            "dataset_id": f"dst_{2:032x}",
            "budgets": [budget.model_dump() for budget in budgets],
        }
    )
    met = BudgetVerdict(name="macs_ratio", goal=0.5, value=0.49, verdict="met")
    unmet = BudgetVerdict(name="latency_ms", goal=1e-9, value=1.93, verdict="unreachable", reason=UNREACHABLE)
    points = [
        SweepPoint(
            job_id=f"job_{number:032x}",
            budget=budget,
            state=JobState.FAILED if verdict is None else JobState.SUCCEEDED,
            measured=None if verdict is None else _measured(verdict),
            model=f"/v1/jobs/job_{number:032x}/artifacts/pruned.onnx",
        )
        for number, (budget, verdict) in enumerate(zip(budgets, (met, unmet, None), strict=True), start=1)
    ]
    return SweepReport(
        job_id=f"job_{9:032x}",
        attempt=1,
        spec=spec,
        model_name="network",
        original_sha256="0" * 64,
        dataset_sha256="1" * 64,
        points=tuple(points),
        front_macs=(0,),
        front_latency=(0, 1),
        warnings=(),
        machine=Machine(cpu="a CPU", cores=2, memory_bytes=8 << 30, gpu=None, sandbox="T0", versions={}),
        artifacts=(),
        stage_seconds={},
    )


def _measured(verdict: BudgetVerdict) -> Measured:
    times = LatencySummary(p50_ms=2, p90_ms=2.1, p99_ms=2.2)
    return Measured(
        original=Cost(params=1000, macs=10_000, flops=20_000, size_bytes=4000),
        pruned=Cost(params=500, macs=4900, flops=9800, size_bytes=2000),
        original_accuracy=Accuracy(top1=0.93, loss=0.2, samples=1000),
        accuracy=Accuracy(top1=0.92, loss=0.3, samples=1000),
        latency=LatencyRow(
            batch_size=1,
            threads=1,
            rounds=30,
            original=times,
            pruned=times,
            speedup=1.5,
            speedup_low=1.4,
            speedup_high=1.6,
            noise=0.05,
        ),
        budget=(verdict,),
    )
