"""What the page says first: one sentence and one tile per quantity."""

from dataclasses import dataclass
from typing import Literal

from models_store.documents.report import Report
from worker.runner.html_report import formats

Tone = Literal["good", "bad", "neutral"]


@dataclass(frozen=True)
class Tile:
    name: str
    value: str
    before: str
    change: str
    tone: Tone
    share: float | None  # pruned / original, drawn as a bar; None where a share says nothing


def _cost(name: str, original: int, pruned: int, text: str, before: str) -> Tile:
    share = pruned / original if original else 1.0
    return Tile(name, text, before, _fewer(share), _tone(share), share)


def _fewer(share: float) -> str:
    if round(share, 3) == 1:
        return "unchanged"
    sign = formats.MINUS if share < 1 else "+"
    return f"{sign}{formats.percent(abs(1 - share))}"


def _tone(share: float) -> Tone:
    return "good" if share < 0.9995 else "bad" if share > 1.0005 else "neutral"


def tiles(report: Report) -> tuple[Tile, ...]:
    """Accuracy first, then costs; what was not measured has no tile."""
    original, pruned = report.original, report.pruned
    row = [
        _cost("MACs", original.macs, pruned.macs, formats.quantity(pruned.macs), formats.quantity(original.macs)),
        _cost(
            "Parameters",
            original.params,
            pruned.params,
            formats.quantity(pruned.params),
            formats.quantity(original.params),
        ),
        _cost(
            "File size",
            original.size_bytes,
            pruned.size_bytes,
            formats.size(pruned.size_bytes),
            formats.size(original.size_bytes),
        ),
    ]
    if original.peak_memory_bytes and pruned.peak_memory_bytes:
        peaks = original.peak_memory_bytes, pruned.peak_memory_bytes
        row.append(_cost("Peak memory", *peaks, formats.size(peaks[1]), formats.size(peaks[0])))
    if report.accuracy is not None:
        before, after = report.accuracy.original.top1, report.accuracy.final.top1
        row.insert(
            0,
            Tile(
                "Accuracy",
                formats.percent(after, 2),
                formats.percent(before, 2),
                formats.points(after - before),
                "good" if after >= before else "neutral",
                share=None,
            ),
        )
    if report.fidelity is not None and report.fidelity.final.error is not None:
        cut, final = report.fidelity.after_cut.error, report.fidelity.final.error
        from_cut = f"{formats.percent(cut)} right after the cut" if cut is not None else "what the cut left"
        name, place = ("Output error", 0) if report.accuracy is None else ("Other outputs' error", 1)
        row.insert(place, Tile(name, formats.percent(final), from_cut, "to the original", "neutral", share=None))
    if report.latency:
        first = report.latency[0]
        share = first.pruned.p50_ms / first.original.p50_ms
        row.append(
            Tile(
                "Latency",
                formats.milliseconds(first.pruned.p50_ms),
                f"{formats.milliseconds(first.original.p50_ms)} at batch {first.batch_size}",
                f"{formats.times(first.speedup)} as fast" if first.resolved else "within noise",
                _tone(1 / first.speedup) if first.resolved else "neutral",
                share,
            )
        )
    return tuple(row)


def sentence(report: Report) -> str:
    """The result in one line, with no adjective."""
    share = report.pruned.macs / report.original.macs if report.original.macs else 1.0
    params = formats.percent(_params_gone(report))
    parts = [f"{formats.percent(1 - share)} of the MACs and {params} of the parameters are gone"]
    if report.accuracy is not None:
        change = report.accuracy.final.top1 - report.accuracy.original.top1
        parts.append(f"accuracy changed by {formats.points(change)}")
    elif report.fidelity is not None and report.fidelity.final.error is not None:
        parts.append(f"the outputs differ from the original's by {formats.percent(report.fidelity.final.error)}")
    else:
        why = "no dataset" if report.dataset_sha256 is None else "no labels"
        parts.append(f"accuracy was not measured, as the job had {why}")
    if report.latency:
        first = report.latency[0]
        where = f"at batch {first.batch_size} on {first.threads} thread{'s' if first.threads > 1 else ''}"
        if first.resolved:
            parts.append(f"the pruned model runs {formats.times(first.speedup)} as fast {where}")
        else:
            parts.append(f"latency did not change beyond the noise {where}")
    return "; ".join(parts) + "."


def _params_gone(report: Report) -> float:
    return 1 - report.pruned.params / report.original.params if report.original.params else 0.0
