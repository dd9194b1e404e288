"""The report as one self-contained HTML page: no script, no outside resource, fit for print and for the dark."""

from models_store.documents.event import STAGES
from models_store.documents.report import LayerRow, Report
from worker.runner.html_report import formats, headline, plots
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
            pinned=[layer for layer in report.layers if layer.pinned_reason],
            intervals=plots.accuracy_intervals(report.accuracy) if report.accuracy else None,
            loss=plots.loss_chart(report.training) if report.training else None,
            validation=plots.accuracy_chart(report.training) if report.training else None,
            latency=[plots.latency_plot(row) for row in report.latency],
            stages=stage_seconds,
            total_seconds=sum(seconds for _, seconds in stage_seconds),
        )
    )


def _skyline(report: Report, value: plots.LayerValue, label: plots.Label) -> plots.Skyline | None:
    return plots.skyline(report.layers, value, label) if report.layers else None


def _channels(layer: LayerRow) -> tuple[int, int]:
    return layer.channels_original, layer.channels_pruned


def _macs(layer: LayerRow) -> tuple[int, int]:
    return layer.macs_original, layer.macs_pruned
