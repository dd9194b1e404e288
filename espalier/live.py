"""A job as it runs, in the terminal: its stages with bars, its last epochs; plain lines where there is no terminal."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from models_store.documents.event import STAGES, Event, EventType
from models_store.documents.job import StageChange, StageProgress, StageState

LAST_EPOCHS = 6
MARKS = {
    StageState.PENDING: Text("·", "dim"),
    StageState.DONE: Text("✓", "green"),
    StageState.SKIPPED: Text("-", "dim"),
    StageState.FAILED: Text("✗", "red"),
    StageState.CANCELLED: Text("✗", "yellow"),
}


@dataclass
class StageLine:
    state: StageState = StageState.PENDING
    progress: float = 0.0
    eta_s: float | None = None
    message: str = ""
    started_at: datetime | None = None
    seconds: float | None = None

    def change(self, change: StageChange, at: datetime) -> None:
        self.state = change.state
        self.message = change.message or self.message
        if change.state is StageState.RUNNING:
            self.started_at, self.progress = at, 0.0
        elif self.started_at is not None:
            self.seconds = (at - self.started_at).total_seconds()


@dataclass
class Board:
    """What the events of one job have told so far."""

    job_id: str
    state: str = "queued"
    stages: dict[str, StageLine] = field(default_factory=lambda: {name: StageLine() for name in STAGES})
    epochs: list[dict[str, float]] = field(default_factory=list)
    spinner: Spinner = field(default_factory=lambda: Spinner("dots", style="green"))

    def hear(self, event: Event) -> str | None:
        """Take an event in; the line that tells of it where only lines can be shown."""
        match event.type:
            case EventType.STATE:
                return self._state(event)
            case EventType.STAGE:
                change = StageChange.model_validate(event.data)
                stage = self.stages.setdefault(change.name, StageLine())
                stage.change(change, event.at)
                return f"{change.name}: {change.state}{f' ({change.message})' if change.message else ''}"
            case EventType.PROGRESS:
                made = StageProgress.model_validate(event.data)
                stage = self.stages.setdefault(made.stage, StageLine())
                stage.progress, stage.eta_s = made.progress, made.eta_s
                return None
            case EventType.METRIC if "epoch" in event.data:
                self.epochs.append(event.data)
                return epoch_line(event.data)
            case EventType.LOG:
                return f"{event.data['level']}: {event.data['message']}"
        return None

    def _state(self, event: Event) -> str:
        self.state = event.data["state"]
        if self.state == "running":  # a new attempt begins from the first stage
            self.stages = {name: StageLine() for name in self.stages}
            self.epochs.clear()
        attempt = f" (attempt {event.attempt})" if event.attempt > 1 else ""
        return f"{self.job_id}: {self.state}{attempt}"

    def __rich__(self) -> RenderableType:
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=1)
        grid.add_column(min_width=9)
        grid.add_column(width=24)
        grid.add_column(justify="right", min_width=8)
        grid.add_column(style="dim", overflow="ellipsis", no_wrap=True)
        for name, stage in self.stages.items():
            running = stage.state is StageState.RUNNING
            bar = ProgressBar(total=1.0, completed=stage.progress, width=24) if running else Text()
            grid.add_row(
                self.spinner if running else MARKS[stage.state],
                Text(name, "bold" if running else "dim" if stage.state is StageState.PENDING else ""),
                bar,
                _time(stage),
                Text(stage.message),
            )
        title = Text.assemble((self.job_id, "bold"), "  ", (self.state, "green" if self.state == "running" else ""))
        return Group(title, grid, *([epoch_table(self.epochs[-LAST_EPOCHS:])] if self.epochs else []))


def follow(events: Iterable[Event], job_id: str, console: Console, stages: Iterable[str] = STAGES) -> Board:
    """Show events of a job with these stages until they end; what was shown last stays on the screen."""
    board = Board(job_id, stages={name: StageLine() for name in stages})
    if not console.is_terminal:
        for event in events:
            if (line := board.hear(event)) is not None:
                console.print(escape(line))
        return board
    with Live(board, console=console, refresh_per_second=8):
        for event in events:
            line = board.hear(event)
            if event.type is EventType.LOG and line is not None:
                console.print(escape(line))
    return board


def epoch_line(epoch: dict[str, float]) -> str:
    figures = (
        f"{name.replace('_', ' ')} {value:.4g}" for name, value in epoch.items() if name not in ("stage", "epoch")
    )
    return f"epoch {epoch['epoch']:.0f}: {', '.join(figures)}"


def epoch_table(epochs: list[dict[str, float]]) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="dim")
    names = [name for name in epochs[-1] if name != "stage"]
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for epoch in epochs:
        table.add_row(*(f"{epoch.get(name, float('nan')):.4g}" for name in names))
    return table


def _time(stage: StageLine) -> Text:
    if stage.seconds is not None:
        return Text(f"{stage.seconds:.1f} s", "dim")
    if stage.state is StageState.RUNNING and stage.eta_s is not None:
        return Text(f"-{stage.eta_s:.0f} s")
    return Text()
