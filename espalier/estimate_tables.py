"""The report of an estimate job in the terminal."""

from rich.markup import escape
from rich.table import Table

from models_store.documents.estimate_report import EstimateReport

MOST_SENSITIVE = 12


def all_of(report: EstimateReport) -> tuple[Table, Table, Table]:
    """What is printed of a report."""
    return curve(report), sensitivity(report), forecast(report)


def curve(report: EstimateReport) -> Table:
    """What is lost and gained at each budget."""
    labelled = report.original_top1 is not None
    table = Table(title=escape(report.model_name), title_style="bold", title_justify="left")
    for heading in (
        "MACs",
        "parameters",
        "latency",
        "as fast",
        "loss",
        *(["accuracy", "norms anew"] if labelled else []),
    ):
        table.add_column(heading, justify="right")
    table.add_column("whole job", justify="right")
    for point in report.curve:
        accuracies = [_share(point.top1), _share(point.top1_reestimated)] if labelled else []
        table.add_row(
            f"{point.macs_ratio:.1%}",
            f"{point.params_ratio:.1%}",
            f"{point.latency_ms:.3f} ms",
            f"{point.speedup:.2f}x",
            "" if point.loss is None else f"{point.loss:.3g}",
            *accuracies,
            f"{point.job_s:.0f} s",
        )
    return table


def sensitivity(report: EstimateReport) -> Table:
    """The layers that lose most when cut alone, at the smallest share that was tried."""
    rows = sorted(report.sensitivity, key=lambda row: -row.cuts[-1].loss if row.cuts else 0.0)[:MOST_SENSITIVE]
    table = Table(title=f"most sensitive layers ({escape(report.measured_on)})", title_justify="left")
    table.add_column("layers", overflow="fold")
    table.add_column("channels", justify="right")
    for cut in report.sensitivity[0].cuts if report.sensitivity else ():
        table.add_column(f"keeps {cut.keep_ratio:.0%}", justify="right")
    for row in rows:
        named = ", ".join(row.layers[:2]) + (f" and {len(row.layers) - 2} more" if len(row.layers) > 2 else "")
        table.add_row(escape(named), str(row.channels), *(f"{cut.loss:.3g}" for cut in row.cuts))
    return table


def forecast(report: EstimateReport) -> Table:
    """The prune job, the layers that stay, and warnings."""
    expected = report.forecast
    grid = Table.grid(padding=(0, 2))
    grid.add_row("prune job", f"about {expected.total_s:.0f} s at {expected.macs_ratio:.1%} of the MACs")
    if expected.memory is not None:
        memory = expected.memory
        grid.add_row("GPU memory", f"about {memory.total_bytes / 2**30:.1f} GiB at batch size {memory.batch_size}")
    grid.add_row("kept whole", f"{len(report.pinned)} layers")
    for layer in report.pinned:
        grid.add_row("", escape(f"{layer.name}: {layer.reason}"))
    for warning in report.warnings:
        grid.add_row("[yellow]![/yellow]", escape(warning))
    return grid


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"
