"""latency: how long the original takes, and its layers at a grid of widths, on this machine."""

from __future__ import annotations

from models_store.documents.base import Document
from worker.runner.budget import latency_table
from worker.runner.workbench import Stage, Workbench


class Timed(Document):
    """Milliseconds of the original, at the budget's batch size and threads."""

    original_ms: float


def run(bench: Workbench) -> Timed:
    return Timed(original_ms=latency_table(bench).whole)


STAGE = Stage("latency", Timed, run)
