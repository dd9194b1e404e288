"""The report of a sweep in the terminal."""

from rich.markup import escape
from rich.table import Table

from models_store.documents.sweep_report import SweepReport


def all_of(report: SweepReport) -> tuple[Table, Table]:
    """What is printed of a report."""
    return points(report), remarks(report)


def points(report: SweepReport) -> Table:
    """Every point; those on a front are marked."""
    table = Table(title=escape(report.model_name), title_style="bold", title_justify="left")
    table.add_column("budget")
    for heading in ("accuracy", "change", "MACs", "as fast"):
        table.add_column(heading, justify="right")
    table.add_column("front")
    table.add_column("job")
    for number, point in enumerate(report.points):
        asked = ", ".join(f"{name} {goal:g}" for name, goal in point.budget.lines().items())
        found = point.measured
        if found is None:
            table.add_row(asked, f"[red]{point.state}[/red]", "", "", "", "", point.job_id)
            continue
        fronts = [
            name for name, front in (("MACs", report.front_macs), ("latency", report.front_latency)) if number in front
        ]
        table.add_row(
            asked,
            f"{found.accuracy.top1:.2%}",
            f"{100 * (found.accuracy.top1 - found.original_accuracy.top1):+.2f} points",
            f"{found.macs_ratio:.1%}",
            f"{found.latency.speedup:.2f}x" if found.latency else "",
            ", ".join(fronts),
            point.job_id,
        )
    return table


def remarks(report: SweepReport) -> Table:
    """How to come by the models, and warnings."""
    grid = Table.grid(padding=(0, 2))
    grid.add_row("", "espalier download JOB pruned.onnx fetches the model of a point")
    for warning in report.warnings:
        grid.add_row("[yellow]![/yellow]", escape(warning))
    return grid
