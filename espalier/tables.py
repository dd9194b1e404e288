"""A report in the terminal: before, after, and what that means."""

from rich.markup import escape
from rich.table import Table

from models_store.documents.report import Report


def all_of(report: Report) -> tuple[Table, Table]:
    """What is printed of a report."""
    return summary(report), verdicts(report)


def summary(report: Report) -> Table:
    """Accuracy or output error, parameters, MACs, size, memory and latency; original and pruned side by side."""
    table = Table(title=escape(report.model_name), title_style="bold", title_justify="left")
    table.add_column("")
    for heading in ("original", "pruned", "change"):
        table.add_column(heading, justify="right")
    if report.accuracy is not None:
        before, cut, after = (
            row.top1 for row in (report.accuracy.original, report.accuracy.after_cut, report.accuracy.final)
        )
        change = f"{100 * (after - before):+.2f} points"
        table.add_row("accuracy (test)", f"{before:.2%}", f"{after:.2%}", change)
        table.add_row("  right after the cut", "", f"{cut:.2%}", "", style="dim")
        if report.accuracy.after_recovery is not None:
            table.add_row("  recovered, not trained", "", f"{report.accuracy.after_recovery.top1:.2%}", "", style="dim")
    if report.fidelity is not None:
        fidelity = report.fidelity
        rows = (("output error", fidelity.final), ("  right after the cut", fidelity.after_cut))
        for name, found in (*rows, ("  recovered, not trained", fidelity.after_recovery)):
            if found is not None:
                error = "shapes differ" if found.error is None else f"{found.error:.2%}"
                table.add_row(name, "", error, "", style="dim" if name.startswith(" ") else "")
    original, pruned = report.original, report.pruned
    table.add_row("parameters", f"{original.params:,}", f"{pruned.params:,}", _ratio(original.params, pruned.params))
    table.add_row("MACs", f"{original.macs:,}", f"{pruned.macs:,}", _ratio(original.macs, pruned.macs))
    sizes = (original.size_bytes, pruned.size_bytes)
    table.add_row("file size", f"{sizes[0] / 1e3:,.1f} kB", f"{sizes[1] / 1e3:,.1f} kB", _ratio(*sizes))
    if original.peak_memory_bytes and pruned.peak_memory_bytes:
        peaks = (original.peak_memory_bytes, pruned.peak_memory_bytes)
        table.add_row(
            "peak memory, one sample", f"{peaks[0] / 1e6:,.1f} MB", f"{peaks[1] / 1e6:,.1f} MB", _ratio(*peaks)
        )
    if report.kernels is not None:
        weights = (report.kernels.conv_weights_original, report.kernels.conv_weights_kept)
        table.add_row("conv weights not zero", f"{weights[0]:,}", f"{weights[1]:,}", _ratio(*weights))
    for search in report.random_masks:
        drawn = "feature maps" if search.granularity == "feature_map" else "kernels"
        best, control = search.errors[search.best], search.control
        table.add_row(
            f"wrong before training, {drawn}", f"L1 vote {control:.2%}", f"{best:.2%}", f"best of {len(search.errors)}"
        )
    for round in report.rounds:
        accuracy = "" if round.top1 is None else f"{round.top1:.2%}"
        table.add_row(f"round {round.step}", f"{round.macs_ratio:.1%} of the MACs", accuracy, "")
    for row in report.latency:
        table.add_row(
            f"latency, {row.setting} (p50)",
            f"{row.original.p50_ms:.3f} ms",
            f"{row.pruned.p50_ms:.3f} ms",
            f"{row.speedup:.2f}x as fast" if row.resolved else "within noise",
        )
    return table


def verdicts(report: Report) -> Table:
    """Each line of the budget, and the two checks that a job makes on itself."""
    grid = Table.grid(padding=(0, 2))
    for line in report.budget:
        met = line.verdict == "met"
        text = f"{line.name} {line.value:.4g}, asked for at most {line.goal:.4g}"
        grid.add_row(mark(met), escape(text), escape(line.reason) if not met else "")
    proof = report.proof
    grid.add_row(
        mark(proof.passed),
        f"surgery proof: relative error {proof.max_relative_error:.1e}, at most {proof.tolerance:.0e} allowed",
    )
    if report.parity is not None:
        parity = report.parity
        grid.add_row(
            mark(parity.max_relative_error <= parity.tolerance),
            f"training parity: relative error {parity.max_relative_error:.1e}, at most {parity.tolerance:.0e} allowed",
        )
    for warning in report.warnings:
        grid.add_row("[yellow]![/yellow]", escape(warning))
    return grid


def _ratio(original: float, pruned: float) -> str:
    return f"{pruned / original:.1%} of it" if original else ""


def mark(good: bool) -> str:
    return "[green]✓[/green]" if good else "[red]✗[/red]"
