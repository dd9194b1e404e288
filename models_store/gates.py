"""Gates over a report: each passes or fails, and says why."""

from collections.abc import Sequence

from models_store.documents.pipeline import Gate, GateVerdict
from models_store.documents.report import ROUNDING, LatencyRow, Report


def judge(gates: Sequence[Gate], report: Report) -> list[GateVerdict]:
    """A verdict per gate, in their order. What the report does not have fails."""
    return [_judge(gate, report) for gate in gates]


def bounds(gate: Gate) -> str:
    """Such as `macs_ratio <= 0.5`."""
    at = f" at batch {gate.batch_size}" if gate.batch_size else ""
    low = f"{gate.min:g} <= " if gate.min is not None else ""
    high = f" <= {gate.max:g}" if gate.max is not None else ""
    return f"{low}{gate.metric}{at}{high}"


def _judge(gate: Gate, report: Report) -> GateVerdict:
    value = _value(gate, report)
    if value is None:
        return GateVerdict(gate=gate, passed=False, value=None, reason=f"{gate.metric}: {_why_absent(gate)}")
    high_enough = gate.min is None or value >= gate.min - ROUNDING
    low_enough = gate.max is None or value <= gate.max + ROUNDING
    passed = high_enough and low_enough
    reason = f"{gate.metric} is {value:.6g}; {'it holds' if passed else 'it does not hold'} that {bounds(gate)}"
    return GateVerdict(gate=gate, passed=passed, value=value, reason=reason)


def _value(gate: Gate, report: Report) -> float | None:
    accuracy, latency = report.accuracy, _latency(gate, report)
    match gate.metric:
        case "accuracy_drop":
            return accuracy.original.top1 - accuracy.final.top1 if accuracy else None
        case "top1":
            return accuracy.final.top1 if accuracy else None
        case "changed_labels":
            return accuracy.changed_labels if accuracy else None
        case "output_error":
            return report.fidelity.final.error if report.fidelity else None
        case "macs_ratio":
            return report.pruned.macs / report.original.macs if report.original.macs else None
        case "params_ratio":
            return report.pruned.params / report.original.params if report.original.params else None
        case "size_ratio":
            return report.pruned.size_bytes / report.original.size_bytes
        case "size_bytes":
            return float(report.pruned.size_bytes)
        case "peak_memory_ratio":
            peaks = report.original.peak_memory_bytes, report.pruned.peak_memory_bytes
            return peaks[1] / peaks[0] if peaks[0] and peaks[1] else None
        case "peak_memory_bytes":
            return report.pruned.peak_memory_bytes
        case "speedup":
            return latency.speedup if latency else None
        case "latency_ms":
            return latency.pruned.p50_ms if latency else None
        case "unmet_budgets":
            return float(sum(line.verdict != "met" for line in report.budget))


def _latency(gate: Gate, report: Report) -> LatencyRow | None:
    rows = (row for row in report.latency if gate.batch_size in (None, row.batch_size))
    return next(rows, None)


def _why_absent(gate: Gate) -> str:
    if gate.metric in ("speedup", "latency_ms"):
        return f"not measured at batch {gate.batch_size}" if gate.batch_size else "not measured"
    if gate.metric in ("peak_memory_ratio", "peak_memory_bytes"):
        return "not measured"
    if gate.metric == "output_error":
        return "measured only where the job has images without labels, or data.labels is false"
    return "not measured, as the job had no labelled images" if gate.metric in ACCURACY else "the original has none"


ACCURACY = ("accuracy_drop", "top1", "changed_labels")
