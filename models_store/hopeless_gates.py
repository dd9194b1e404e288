"""Gates that no report can pass, told before one is made: bounds that no number keeps, and numbers that the job will
not measure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf

from models_store.documents.job_spec import DataKind, JobSpec
from models_store.documents.methods import Place
from models_store.documents.pipeline import Gate
from models_store.gates import ACCURACY, bounds

_SHARES = {"top1": (0.0, 1.0), "changed_labels": (0.0, 1.0), "accuracy_drop": (-1.0, 1.0)}
_RATIOS = {"macs_ratio": (0.0, 1.0), "params_ratio": (0.0, 1.0)}
_RANGES = _SHARES | _RATIOS
"""Others are anything from 0."""
_NEVER_NOTHING = frozenset(
    [
        *("macs_ratio", "params_ratio", "size_ratio", "size_bytes", "peak_memory_ratio", "peak_memory_bytes"),
        *("speedup", "latency_ms"),
    ]
)


def out_of_reach(gates: Sequence[Gate], job: JobSpec) -> Iterator[tuple[Place, str]]:
    """The place and the fault of each gate that no run of the job can pass, whatever model and data it has."""
    measured = {*job.measuring.batch_sizes, *([job.budget.latency_batch_size] if job.budget.bounds_latency else [])}
    for number, gate in enumerate(gates):
        fault = _without_a_number(gate)
        if fault:
            yield ("gates", number), fault
        if gate.batch_size is not None and gate.batch_size not in measured:
            sizes = ", ".join(map(str, sorted(measured)))
            text = f"the job measures latency at {sizes}: add {gate.batch_size} to job.measuring.batch_sizes"
            yield ("gates", number, "batch_size"), text
        if not job.data.labels and gate.metric in ACCURACY:
            yield ("gates", number, "metric"), _needs_labels(gate, "the job has data.labels false")


def not_judged(gates: Sequence[Gate], data: DataKind, fixed_batch: int | None) -> Iterator[tuple[Place, str]]:
    """As `out_of_reach`, for a run of which the data are known, and the batch size that its model insists on."""
    for number, gate in enumerate(gates):
        place = ("gates", number, "metric")
        if fixed_batch is not None and gate.batch_size not in (None, fixed_batch):
            text = f"latency is measured at the fixed batch size of the run's model, {fixed_batch}, alone"
            yield ("gates", number, "batch_size"), text
        if gate.metric in ACCURACY and data != "labels":
            yield place, _needs_labels(gate, "the run has no dataset" if data == "none" else "its dataset has none")
        if gate.metric == "output_error" and data == "none":
            yield place, "output_error is measured on images, and the run has no dataset"
        if gate.metric == "output_error" and data == "labels":
            yield place, "output_error is measured where labels are not used: set data.labels to false in the job"


def _without_a_number(gate: Gate) -> str:
    low, high = _RANGES.get(gate.metric, (0.0, inf))
    least, most = (-inf if gate.min is None else gate.min), (inf if gate.max is None else gate.max)
    if least > most:
        return f"no number keeps {bounds(gate)}: min is above max"
    if most < low or (most <= 0 and gate.metric in _NEVER_NOTHING):
        return f"no report keeps {bounds(gate)}: {gate.metric} is never as low"
    if least > high:
        hint = "; it is a share, and 0.85 is 85 %" if gate.metric in _SHARES else ""
        return f"no report keeps {bounds(gate)}: {gate.metric} is at most {high:g}{hint}"
    return ""


def _needs_labels(gate: Gate, why_not: str) -> str:
    return f"{gate.metric} is measured on images with labels, and {why_not}"
