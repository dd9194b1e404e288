"""One attempt: the order is carried out, or the reason why not is written down."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from models_store.documents.base import Document
from models_store.documents.job_spec import JobKind
from worker.order import EXIT_LOST, EXIT_SPREAD, EXIT_STOPPED, Order
from worker.runner.diagnosis import diagnose
from worker.runner.interruption import Lost, Spread, Stopped
from worker.runner.voice import Voice
from worker.work_folder import WorkFolder

if TYPE_CHECKING:
    from worker.runner.crew import Crew


def carry_out(order: Order, folder: WorkFolder, crew: Crew | None = None) -> int:
    """Leave `result.json` and return 0, or `failure.json` and return 1; neither where told to stop, where parts are
    left to other workers, or where another process of the `crew` is lost."""
    voice = Voice(order.events_fd)
    try:
        _write(folder.result, _work(order, folder, voice, crew))
    except Stopped:
        return EXIT_STOPPED
    except Spread:
        return EXIT_SPREAD
    except Lost:
        traceback.print_exc()
        return EXIT_LOST
    except Exception as error:  # this process ends with it: nobody above could hear it
        traceback.print_exc()
        _write(folder.failure, diagnose(error, voice.current_stage))
        return 1
    return 0


def _work(order: Order, folder: WorkFolder, voice: Voice, crew: Crew | None) -> Document:
    # Imported where needed: an inspection is to be quick, and needs neither the pipeline nor torch.
    if order.kind is JobKind.INSPECT:
        from worker.runner.inspection import inspect

        return inspect(order, folder, voice)
    if order.kind is JobKind.SWEEP:
        from worker.runner.sweep import run_sweep

        return run_sweep(order, folder, voice)
    if order.kind is JobKind.MASKS:
        from worker.runner.random_masks import score_part

        return score_part(order, folder, voice)
    from worker.runner.pipeline import run_pipeline

    return run_pipeline(order, folder, voice, crew)


def _write(path: Path, document: Document) -> None:
    path.write_text(document.model_dump_json())
