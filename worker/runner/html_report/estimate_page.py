"""The report of an estimate job as one self-contained HTML page."""

from models_store.documents.estimate_report import EstimateReport
from models_store.documents.event import ESTIMATE_STAGES
from worker.runner.html_report import formats
from worker.runner.html_report.curves import Series, XyChart, xy_chart
from worker.runner.html_report.environment import environment
from worker.runner.html_report.plots import Label, percent_label

_MEASURES = {"output_change": "change of the outputs", "importance": "share of importance lost"}


def render_estimate(report: EstimateReport) -> str:
    """The page for `report`. Every string in it is escaped: layer names are a stranger's text."""
    stages = [(name, report.stage_seconds[name]) for name in ESTIMATE_STAGES if name in report.stage_seconds]
    return (
        environment()
        .get_template("estimate.html")
        .render(
            report=report,
            measure=_MEASURES[report.measure],
            over_macs=_over_macs(report),
            over_speed=_over_speed(report),
            keep=[cut.keep_ratio for cut in report.sensitivity[0].cuts] if report.sensitivity else [],
            worst=max((cut.loss for row in report.sensitivity for cut in row.cuts), default=1.0) or 1.0,
            stages=stages,
            total_seconds=sum(seconds for _, seconds in stages),
        )
    )


def _over_macs(report: EstimateReport) -> XyChart | None:
    return _chart(report, [point.macs_ratio for point in report.curve], "MACs kept", percent_label)


def _over_speed(report: EstimateReport) -> XyChart | None:
    return _chart(report, [point.speedup for point in report.curve], "times as fast", formats.times)


def _chart(report: EstimateReport, xs: list[float], x_name: str, x_label: Label) -> XyChart | None:
    """Accuracy where there are labels, else the loss."""
    rows = list(zip(xs, report.curve, strict=True))
    if report.original_top1 is not None:
        cut = [(x, p.top1, f"{formats.percent(p.top1)}") for x, p in rows if p.top1 is not None]
        again = [
            (x, p.top1_reestimated, f"{formats.percent(p.top1_reestimated)}")
            for x, p in rows
            if p.top1_reestimated is not None
        ]
        series = [Series("right after the cut", "second", cut), Series("norms taken anew", "first", again)]
        return xy_chart(series, x_name, "accuracy", x_label, percent_label)
    losses = [(x, p.loss, formats.significant(p.loss)) for x, p in rows if p.loss is not None]
    return xy_chart([Series("loss", "first", losses)], x_name, _MEASURES[report.measure], x_label, formats.significant)
