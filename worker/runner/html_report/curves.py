"""Geometry of charts over two measured axes: numbers in, SVG user units out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from worker.runner.html_report.plots import Frame, Label, Line, Point, Tick, scale, tick_values


@dataclass(frozen=True)
class Series:
    """Points (x, y, what they stand for); drawn as a line through them, or as dots alone."""

    name: str
    style: str
    points: Sequence[tuple[float, float, str]]
    joined: bool = True


@dataclass(frozen=True)
class DrawnSeries:
    line: Line
    joined: bool


@dataclass(frozen=True)
class XyChart:
    frame: Frame
    series: tuple[DrawnSeries, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    x_name: str
    y_name: str


def xy_chart(series: Sequence[Series], x_name: str, y_name: str, x_label: Label, y_label: Label) -> XyChart | None:
    """Points that are not finite are left out; None where none is left."""
    finite = [
        (each, [(x, y, title) for x, y, title in each.points if math.isfinite(x) and math.isfinite(y)])
        for each in series
    ]
    points = [point for _, found in finite for point in found]
    if not points:
        return None
    frame = Frame(width=490, height=260, left=58, top=14, right=478, bottom=212)
    low_x, high_x = _span([x for x, _, _ in points])
    low_y, high_y = _span([y for _, y, _ in points])
    at_x = scale(low_x, high_x, frame.left, frame.right)
    at_y = scale(low_y, high_y, frame.bottom, frame.top)
    drawn = tuple(
        DrawnSeries(Line(each.name, each.style, tuple(Point(at_x(x), at_y(y), t) for x, y, t in found)), each.joined)
        for each, found in finite
    )
    return XyChart(
        frame,
        drawn,
        x_ticks=tuple(Tick(at_x(tick), x_label(tick)) for tick in tick_values(low_x, high_x, about=6)),
        y_ticks=tuple(Tick(at_y(tick), y_label(tick)) for tick in tick_values(low_y, high_y)),
        x_name=x_name,
        y_name=y_name,
    )


def _span(values: Sequence[float]) -> tuple[float, float]:
    """The values with a little room on both sides."""
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
    return low - margin, high + margin
