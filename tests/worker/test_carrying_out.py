"""What a child leaves, whatever comes of its work."""

import os
from pathlib import Path

import pytest

from models_store.documents.inspection import Rejection
from worker.order import Failure, Order
from worker.runner import attempt
from worker.work_folder import WorkFolder


def test_a_result_that_cannot_be_written_is_a_failure_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = WorkFolder(tmp_path / "job" / "1")
    folder.create()
    unwritable = Rejection(code="x", message="no text: \udce9", hint="")
    monkeypatch.setattr(attempt, "_work", lambda *_: unwritable)
    with Path(os.devnull).open("wb") as events:
        order = Order.model_construct(events_fd=events.fileno())
        assert attempt.carry_out(order, folder) == 1
    assert not folder.result.exists()
    assert Failure.model_validate_json(folder.failure.read_text()).error.code == "internal_error"
