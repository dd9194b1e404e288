"""The report as one self-contained HTML page: no script, no outside resource, fit for print and for the dark."""

from itertools import accumulate

from models_store.documents.event import STAGES
from models_store.documents.report import AllocationSearch, LayerRow, Report
from worker.runner.html_report import formats, headline, plots
from worker.runner.html_report.curves import Series, XyChart, xy_chart
from worker.runner.html_report.environment import environment

__all__ = ["render"]


def render(report: Report) -> str:
    """The page for `report`. Every string in it is escaped: layer names are a stranger's text."""
    stage_seconds = [(stage, report.stage_seconds[stage]) for stage in STAGES if stage in report.stage_seconds]
    return (
        environment()
        .get_template("page.html")
        .render(
            report=report,
            tiles=headline.tiles(report),
            sentence=headline.sentence(report),
            channels=_skyline(report, _channels, formats.quantity),
            macs=_skyline(report, _macs, formats.quantity),
            timed=any(layer.time_original_ms is not None for layer in report.layers),
            pinned=[layer for layer in report.layers if layer.pinned_reason],
            intervals=plots.accuracy_intervals(report.accuracy) if report.accuracy else None,
            loss=plots.loss_chart(report.training) if report.training else None,
            validation=plots.accuracy_chart(report.training) if report.training else None,
            search=_search(report.search) if report.search else None,
            latency=[plots.latency_plot(row) for row in report.latency],
            stages=stage_seconds,
            total_seconds=sum(seconds for _, seconds in stage_seconds),
        )
    )


def _skyline(report: Report, value: plots.LayerValue, label: plots.Label) -> plots.Skyline | None:
    return plots.skyline(report.layers, value, label) if report.layers else None


def _search(search: AllocationSearch) -> XyChart | None:
    """Every candidate in the order of the search, and the best so far."""
    seen = [(number + 1.0, each.top1, formats.percent(each.top1)) for number, each in enumerate(search.candidates)]
    best = accumulate((top1 for _, top1, _ in seen), max)
    so_far = [(x, y, formats.percent(y)) for (x, _, _), y in zip(seen, best, strict=True)]
    series = (Series("candidate", "second", seen, joined=False), Series("best so far", "first", so_far))
    return xy_chart(series, "evaluation", "validation accuracy", lambda value: f"{value:.0f}", plots.percent_label)


def _channels(layer: LayerRow) -> tuple[int, int]:
    return layer.channels_original, layer.channels_pruned


def _macs(layer: LayerRow) -> tuple[int, int]:
    return layer.macs_original, layer.macs_pruned
