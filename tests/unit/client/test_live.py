"""What a terminal shows of a job."""

import io
from datetime import UTC, datetime, timedelta

from rich.console import Console
from rich.text import Text

from espalier.live import Board, follow
from models_store.documents.event import Event, EventType

BEGIN = datetime(2026, 11, 20, 12, tzinfo=UTC)
EPOCH = {"stage": "finetune", "epoch": 1, "train_loss": 0.51234, "validation_top1": 0.9}


def events(*told: tuple[EventType, dict]) -> list[Event]:
    return [
        Event(seq=seq, type=kind, at=BEGIN + timedelta(seconds=2 * seq), attempt=1, data=data)
        for seq, (kind, data) in enumerate(told, start=1)
    ]


STORY = events(
    (EventType.STATE, {"state": "running", "attempt": 1}),
    (EventType.STAGE, {"name": "baseline", "state": "running"}),
    (EventType.STAGE, {"name": "baseline", "state": "done", "message": "98.1 % right"}),
    (EventType.STAGE, {"name": "finetune", "state": "running"}),
    (EventType.METRIC, EPOCH),
    (EventType.LOG, {"level": "warning", "message": "layer [bold]x[/bold] stays"}),
    (EventType.PROGRESS, {"stage": "finetune", "progress": 0.5, "eta_s": 12.0}),
)


def screen(thing: object) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(thing)
    return console.file.getvalue()


def test_the_board_shows_stages_times_and_epochs():
    board = Board("job_1")
    for event in STORY:
        board.hear(event)
    shown = screen(board)
    assert "98.1 % right" in shown
    assert "2.0 s" in shown  # baseline, from its events
    assert "-12 s" in shown  # what finetuning expects
    assert "0.5123" in shown
    assert board.stages["finetune"].progress == 0.5


def test_a_new_attempt_starts_afresh():
    board = Board("job_1")
    for event in [*STORY, Event(seq=9, type=EventType.STATE, at=BEGIN, attempt=2, data={"state": "running"})]:
        line = board.hear(event)
    assert "(attempt 2)" in line
    assert board.epochs == []
    assert board.stages["finetune"].progress == 0.0


def test_without_a_terminal_there_are_plain_lines():
    console = Console(file=io.StringIO(), width=100)
    follow(STORY, "job_1", console)
    assert console.file.getvalue().splitlines() == [
        "job_1: running",
        "baseline: running",
        "baseline: done (98.1 % right)",
        "finetune: running",
        "epoch 1: train loss 0.5123, validation top1 0.9",
        "warning: layer [bold]x[/bold] stays",
    ]


def test_a_terminal_shows_the_same_story():
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    board = follow(STORY, "job_1", console)
    assert board.state == "running"
    assert "layer [bold]x[/bold] stays" in Text.from_ansi(console.file.getvalue()).plain
