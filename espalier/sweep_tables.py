"""The report of a sweep in the terminal."""

from rich.markup import escape
from rich.table import Table

from espalier.tables import mark
from models_store.documents.report import BudgetVerdict
from models_store.documents.sweep_report import SweepReport


def all_of(report: SweepReport) -> tuple[Table, Table, Table]:
    """What is printed of a report."""
    return points(report), jobs(report), remarks(report)


def points(report: SweepReport) -> Table:
    """Every point; whether it keeps its budget, and the fronts that it is on."""
    table = Table(title=escape(report.model_name), title_style="bold", title_justify="left")
    table.add_column("#", justify="right")
    table.add_column("budget")
    table.add_column("met")
    for heading in ("accuracy", "points", "MACs", "as fast"):
        table.add_column(heading, justify="right")
    table.add_column("front")
    for number, point in enumerate(report.points):
        asked = "\n".join(f"{name} {goal:g}" for name, goal in point.budget.lines().items())
        found = point.measured
        if found is None:
            table.add_row(str(number + 1), asked, "", f"[red]{point.state}[/red]")
            continue
        fronts = [
            name for name, front in (("MACs", report.front_macs), ("latency", report.front_latency)) if number in front
        ]
        table.add_row(
            str(number + 1),
            asked,
            mark(not found.unmet),
            f"{found.accuracy.top1:.2%}",
            f"{100 * (found.accuracy.top1 - found.original_accuracy.top1):+.2f}",
            f"{found.macs_ratio:.1%}",
            f"{found.latency.speedup:.2f}x" if found.latency else "",
            ", ".join(fronts),
        )
    return table


def jobs(report: SweepReport) -> Table:
    """The job of each point, whole however narrow the terminal, and what its budget asked for in vain."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right")
    grid.add_column(no_wrap=True, min_width=max(len(point.job_id) for point in report.points))
    for number, point in enumerate(report.points, start=1):
        unmet = point.measured.unmet if point.measured else ()
        grid.add_row(str(number), point.job_id, escape("\n".join(map(_missed, unmet))))
    return grid


def _missed(line: BudgetVerdict) -> str:
    reason = f": {line.reason}" if line.reason else ""
    return f"{line.name} {line.value:.4g}, asked for at most {line.goal:.4g}{reason}"


def remarks(report: SweepReport) -> Table:
    """How to come by the models, and warnings."""
    grid = Table.grid(padding=(0, 2))
    grid.add_row("", "espalier download JOB pruned.onnx fetches the model of a point")
    for warning in report.warnings:
        grid.add_row("[yellow]![/yellow]", escape(warning))
    return grid
