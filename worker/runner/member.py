"""One of the processes of a job that is carried out by several."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

from worker import sandbox
from worker.order import EXIT_LOST, Order
from worker.runner.diagnosis import diagnose
from worker.work_folder import WorkFolder

if TYPE_CHECKING:
    from worker.runner.crew import Crew
    from worker.runner.workbench import Workbench


def join(order: Order, folder: WorkFolder, launcher_pid: int) -> NoReturn:
    """Carry out the order as the first process, or help the one that does. Ends the process."""
    writable = folder.writable
    sandbox.enter(order.sandbox, order.limits, launcher_pid, (folder.root,), writable, joins_others=True)
    crew = _connect(order, folder)
    # Only now, as in a process that is alone: what parses is imported, and the stranger's file is opened.
    code = _lead(order, folder, crew) if crew.leads else _help(order, folder, crew)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # nothing that waits for a process that may be gone


def _connect(order: Order, folder: WorkFolder) -> Crew:
    """Where memory or disk are too small for that, this process says so: the first one cannot know."""
    try:
        from worker.runner.crew import assemble

        crew = assemble(order, folder)
    except Exception as error:
        failure = diagnose(error, None)
        if failure.retry:
            folder.failure.write_text(failure.model_dump_json())
        raise
    sandbox.close_network(order.sandbox)
    return crew


def _lead(order: Order, folder: WorkFolder, crew: Crew) -> int:
    from worker.runner.attempt import carry_out

    code = carry_out(order, folder, crew)
    crew.dismiss()
    return code


def _help(order: Order, folder: WorkFolder, crew: Crew) -> int:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # told to stop is the first one, which tells the others
    from worker.runner.crew import is_loss
    from worker.runner.voice import Voice
    from worker.runner.workbench import Workbench

    bench = Workbench(order, folder, Voice(os.open(os.devnull, os.O_WRONLY)))
    try:
        _assist(bench, crew)
    except Exception as error:
        traceback.print_exc()
        if is_loss(error):
            return EXIT_LOST
        crew.give_up(error)
        return 1
    return 0


def _assist(bench: Workbench, crew: Crew) -> None:
    from worker.engine.errors import EngineError
    from worker.engine.recovery import Checkpoints, Interrupted, finetune
    from worker.engine.torch_form import build

    for assignment, team in crew.assignments():
        form = build(assignment.model)
        teacher = build(bench.original) if assignment.taught else None
        if bench.dataset is None:
            raise ValueError("a job without a dataset has no training")
        crew.prepared()
        try:
            finetune(
                form,
                bench.dataset,
                assignment.options,
                masks=assignment.masks,
                checkpoints=Checkpoints(assignment.checkpoint),
                teacher=teacher,
                decay=assignment.decay,
                team=team,
            )
        except (EngineError, Interrupted) as end:  # the first process has the same, and says what follows from it
            print(f"the training ended: {end}")
