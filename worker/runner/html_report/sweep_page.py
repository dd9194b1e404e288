"""The report of a sweep: a self-contained HTML page, and its plot as a file of its own."""

from collections.abc import Callable

from models_store.documents.event import SWEEP_STAGES
from models_store.documents.sweep_report import Measured, SweepReport
from worker.runner.html_report import formats
from worker.runner.html_report.curves import Series, XyChart, xy_chart
from worker.runner.html_report.environment import environment
from worker.runner.html_report.plots import Label, percent_label


def render_sweep(report: SweepReport) -> str:
    """The page for `report`. Every string in it is escaped."""
    stages = [(name, report.stage_seconds[name]) for name in SWEEP_STAGES if name in report.stage_seconds]
    original = next(point.measured for point in report.points if point.measured)
    methods = [job.pruning.methods() for job in report.spec.jobs()]
    return (
        environment()
        .get_template("sweep.html")
        .render(
            report=report,
            original=original,
            criteria=sorted({chosen["criterion"].name for chosen in methods}),
            allocations=sorted({chosen["allocation"].name for chosen in methods}),
            over_macs=_over_macs(report),
            over_latency=_over_latency(report),
            stages=stages,
            total_seconds=sum(seconds for _, seconds in stages),
        )
    )


def render_sweep_plot(report: SweepReport) -> str:
    """Both fronts side by side, as an SVG file."""
    charts = [chart for chart in (_over_macs(report), _over_latency(report)) if chart is not None]
    return environment().get_template("front.svg").render(charts=charts, title=report.model_name)


def _over_macs(report: SweepReport) -> XyChart | None:
    return _chart(report, report.front_macs, lambda m: m.macs_ratio, "MACs kept", percent_label)


def _over_latency(report: SweepReport) -> XyChart | None:
    def share(measured: Measured) -> float:
        return 1 / measured.latency.speedup if measured.latency else float("nan")

    return _chart(report, report.front_latency, share, "latency kept", percent_label)


def _chart(
    report: SweepReport, front: tuple[int, ...], cost: Callable[[Measured], float], x_name: str, x_label: Label
) -> XyChart | None:
    """All points, the front through the best, and the original at the right."""

    def place(number: int) -> tuple[float, float, str] | None:
        measured = report.points[number].measured
        if measured is None:
            return None
        title = f"{formats.percent(cost(measured))} {x_name}, accuracy {formats.percent(measured.accuracy.top1, 2)}"
        return cost(measured), measured.accuracy.top1, title

    others = [found for number in range(len(report.points)) if number not in front and (found := place(number))]
    best = [found for number in front if (found := place(number))]
    originals = [point.measured.original_accuracy.top1 for point in report.points if point.measured]
    original = [(1.0, top1, f"original, accuracy {formats.percent(top1, 2)}") for top1 in originals[:1]]
    series = (
        Series("other point", "second", others, joined=False),
        Series("front", "first", best),
        Series("original", "third", original, joined=False),
    )
    return xy_chart(series, x_name, "accuracy", x_label, percent_label)
