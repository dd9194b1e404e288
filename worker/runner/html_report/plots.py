"""Geometry of the report's plots: numbers in, SVG user units out. The template draws them and escapes every name."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from models_store.documents.report import Accuracy, AccuracyRows, LatencyRow, LayerRow, Training
from worker.runner.html_report.formats import SPACE

Label = Callable[[float], str]
LayerValue = Callable[[LayerRow], tuple[int, int]]


def _plain(value: float) -> str:
    return f"{value:.4g}"


def percent_label(share: float) -> str:
    return f"{100 * share:.4g}{SPACE}%"


def milliseconds_label(value: float) -> str:
    return f"{value:.4g}{SPACE}ms"


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Frame:
    """The drawing area inside a viewBox of `width` x `height`."""

    width: float
    height: float
    left: float
    top: float
    right: float
    bottom: float


def tick_values(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten apart) inside [low, high]."""
    span = high - low
    if span <= 0 or not math.isfinite(span):
        return [low]
    raw = span / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """The linear map of [low, high] onto [start, end], rounded to what a screen resolves."""
    span = (high - low) or 1.0
    return lambda value: round(start + (value - low) / span * (end - start), 2)


@dataclass(frozen=True)
class Column:
    """One layer in a skyline: the original's bar with the pruned one in front."""

    number: int
    layer: LayerRow
    x: float
    width: float
    original_y: float
    pruned_y: float


@dataclass(frozen=True)
class Skyline:
    frame: Frame
    columns: tuple[Column, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def skyline(layers: Sequence[LayerRow], value: LayerValue, label: Label) -> Skyline:
    """One column per layer in graph order; `value` gives (original, pruned), `label` writes the vertical axis."""
    frame = Frame(width=1000, height=210, left=62, top=10, right=996, bottom=184)
    highest = max(value(layer)[0] for layer in layers) or 1
    slot = (frame.right - frame.left) / len(layers)
    gap = min(0.22 * slot, 6.0) if slot >= 4 else 0.0
    y = scale(0, highest, frame.bottom, frame.top)
    columns = tuple(
        Column(
            number=index + 1,
            layer=layer,
            x=round(frame.left + index * slot + gap / 2, 2),
            width=round(slot - gap, 2),
            original_y=y(value(layer)[0]),
            pruned_y=y(value(layer)[1]),
        )
        for index, layer in enumerate(layers)
    )
    every = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, len(layers)) if len(layers) / step <= 30)
    numbered = [column for column in columns if column.number % every == 0 or (every > 1 and column.number == 1)]
    return Skyline(
        frame,
        columns,
        x_ticks=tuple(Tick(round(column.x + column.width / 2, 2), str(column.number)) for column in numbered),
        y_ticks=tuple(Tick(y(tick), label(tick)) for tick in tick_values(0, highest)),
    )


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    title: str


@dataclass(frozen=True)
class Line:
    name: str
    style: str
    points: tuple[Point, ...]

    @property
    def path(self) -> str:
        return " ".join(f"{point.x},{point.y}" for point in self.points)


@dataclass(frozen=True)
class Chart:
    frame: Frame
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    best_x: float | None


def chart(
    series: Sequence[tuple[str, str, Sequence[tuple[int, float]]]],
    best_epoch: int,
    label: Label,
) -> Chart | None:
    """Values over epochs, as (name, style, [(epoch, value)]); non-finite values are left out; None if none is left."""
    finite = [
        (name, style, [(epoch, value) for epoch, value in values if math.isfinite(value)])
        for name, style, values in series
    ]
    epochs = sorted({epoch for _, _, values in series for epoch, _ in values})
    heights = [value for _, _, values in finite for _, value in values]
    if not heights:
        return None
    frame = Frame(width=490, height=240, left=54, top=12, right=478, bottom=206)
    low, high = min(heights), max(heights)
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 0.05
    x = scale(min(0, epochs[0]), max(epochs[-1], 1), frame.left + 8, frame.right - 8)
    y = scale(low - margin, high + margin, frame.bottom, frame.top)
    lines = tuple(
        Line(name, style, tuple(Point(x(epoch), y(value), f"epoch {epoch}: {label(value)}") for epoch, value in values))
        for name, style, values in finite
    )
    whole = [tick for tick in tick_values(min(0, epochs[0]), max(epochs[-1], 1), about=6) if tick == int(tick)]
    return Chart(
        frame,
        lines,
        x_ticks=tuple(Tick(x(tick), str(int(tick))) for tick in whole),
        y_ticks=tuple(Tick(y(tick), label(tick)) for tick in tick_values(low - margin, high + margin)),
        best_x=x(best_epoch) if min(0, epochs[0]) <= best_epoch <= max(epochs[-1], 1) else None,
    )


def loss_chart(training: Training) -> Chart | None:
    train = [(row.epoch, row.train_loss) for row in training.epochs]
    validation = [(row.epoch, row.validation_loss) for row in training.epochs]
    return chart([("training", "second", train), ("validation", "first", validation)], training.best_epoch, _plain)


def accuracy_chart(training: Training) -> Chart | None:
    validation = [(row.epoch, row.validation_top1) for row in training.epochs if row.validation_top1 is not None]
    return chart([("validation", "first", validation)], training.best_epoch, percent_label) if validation else None


@dataclass(frozen=True)
class Interval:
    """One measured share with its 95 % interval, both as text and as positions."""

    name: str
    style: str
    accuracy: Accuracy
    low: float
    high: float
    at: float
    from_x: float
    to_x: float
    y: float


@dataclass(frozen=True)
class Intervals:
    frame: Frame
    rows: tuple[Interval, ...]
    ticks: tuple[Tick, ...]


def wilson(share: float, samples: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % interval of a share seen in `samples` trials (Wilson 1927)."""
    if samples == 0:
        return 0.0, 1.0
    centre = (share + z * z / (2 * samples)) / (1 + z * z / samples)
    half = z / (1 + z * z / samples) * math.sqrt(share * (1 - share) / samples + z * z / (4 * samples * samples))
    return max(0.0, centre - half), min(1.0, centre + half)


def accuracy_intervals(rows: AccuracyRows) -> Intervals:
    """Original and final; right after the cut a network is often so far off that nothing else could be told apart."""
    named = (("original", "before", rows.original), ("pruned", "after", rows.final))
    bounds = [wilson(row.top1, row.samples) for _, _, row in named]
    low, high = min(bound[0] for bound in bounds), max(bound[1] for bound in bounds)
    frame = Frame(width=1000, height=96, left=112, top=8, right=984, bottom=70)
    x = scale(low, high, frame.left + 6, frame.right - 6)
    return Intervals(
        frame,
        tuple(
            Interval(name, style, row, bound[0], bound[1], x(row.top1), x(bound[0]), x(bound[1]), 24.0 + 31 * index)
            for index, ((name, style, row), bound) in enumerate(zip(named, bounds, strict=True))
        ),
        tuple(Tick(x(tick), percent_label(tick)) for tick in tick_values(low, high, about=6)),
    )


@dataclass(frozen=True)
class Percentiles:
    style: str
    p50: float
    p90: float
    p99: float
    y: float
    clipped: bool  # the 99th percentile lies beyond the axis


@dataclass(frozen=True)
class LatencyPlot:
    frame: Frame
    row: LatencyRow
    series: tuple[Percentiles, ...]
    ticks: tuple[Tick, ...]


def latency_plot(row: LatencyRow) -> LatencyPlot:
    """From 0 ms: a bar to the median, whiskers to the 90th and 99th percentiles; a straggler does not set the scale."""
    frame = Frame(width=1000, height=104, left=112, top=6, right=976, bottom=78)
    tail = max(row.original.p99_ms, row.pruned.p99_ms)
    longest = min(tail, 1.5 * max(row.original.p90_ms, row.pruned.p90_ms)) or 1.0
    x = scale(0, longest, frame.left, frame.right)
    measured = (("before", row.original, 25.0), ("after", row.pruned, 59.0))
    series = (
        Percentiles(style, x(ms.p50_ms), x(ms.p90_ms), x(min(ms.p99_ms, longest)), y, clipped=ms.p99_ms > longest)
        for style, ms, y in measured
    )
    ticks = tuple(Tick(x(tick), milliseconds_label(tick)) for tick in tick_values(0, longest, about=6))
    return LatencyPlot(frame, row, tuple(series), ticks)
