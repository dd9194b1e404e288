"""What a child says is heard if it makes sense, and passed over if not."""

import math

import pytest
from pydantic import ValidationError

from models_store.documents.event import EventType
from worker.messages import MESSAGE


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (
            '{"type": "stage", "name": "prune", "state": "done"}',
            (EventType.STAGE, {"name": "prune", "state": "done"}),
        ),
        (
            '{"type": "progress", "stage": "prune", "progress": 0.5}',
            (EventType.PROGRESS, {"stage": "prune", "progress": 0.5}),
        ),
        (
            '{"type": "metric", "stage": "finetune", "values": {"epoch": 1, "train_loss": 0.5}}',
            (EventType.METRIC, {"stage": "finetune", "epoch": 1, "train_loss": 0.5}),
        ),
        ('{"type": "log", "message": "hello"}', (EventType.LOG, {"level": "info", "message": "hello"})),
    ],
)
def test_becomes_an_event(line: str, event: tuple[EventType, dict[str, object]]) -> None:
    assert MESSAGE.validate_json(line).event() == event


@pytest.mark.parametrize(
    "line",
    [
        "",
        "no json",
        "[" * 100_000,
        '{"type": "state", "state": "succeeded"}',
        '{"type": "stage", "name": "prune", "state": "done", "worker": "me"}',
        '{"type": "progress", "stage": "prune", "progress": 7}',
        f'{{"type": "progress", "stage": "prune", "progress": {math.nan}}}',
        f'{{"type": "metric", "stage": "finetune", "values": {{"loss": {math.inf}}}}}',
        '{"type": "log", "message": "' + "x" * 20_000 + '"}',
    ],
)
def test_nonsense(line: str) -> None:
    with pytest.raises(ValidationError):
        MESSAGE.validate_json(line)
