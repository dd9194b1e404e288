"""`python -m tests.worker.faults.dying_worker [FAILPOINT]`: a worker without a broker that dies at a failpoint.

Every commit of the worker has two: `before NAME` and `after NAME`, where NAME is the function that commits, and the
operation where it commits what others ask for. At the failpoint the process is killed as by SIGKILL from outside. The
failpoints that were passed are printed, so that a list of them can be checked.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

from sqlalchemy import Connection, event
from sqlalchemy.orm import Session

from worker import tasks

_WORKER = str(Path(tasks.__file__).parent)


def main() -> None:
    armed = " ".join(sys.argv[1:])

    def passed(failpoint: str) -> None:
        os.write(sys.stdout.fileno(), f"{failpoint}\n".encode())  # in one piece, beside those of other threads
        if failpoint == armed:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(connection: Connection) -> None:
        if not connection.get_execution_options().get("espalier_read_only"):
            passed(f"before {_committer(sys._getframe())}")

    def after(session: Session) -> None:
        if not session.get_bind().get_execution_options().get("espalier_read_only"):
            passed(f"after {_committer(sys._getframe())}")

    event.listen(tasks._database().engine, "commit", before)
    event.listen(Session, "after_commit", after)
    tasks.ring()


def _committer(frame: FrameType | None) -> str:
    while frame is not None and not frame.f_code.co_filename.startswith(_WORKER):
        frame = frame.f_back
    if frame is None:
        return "somebody"
    operation = frame.f_locals.get("operation")
    # Of a lambda or a function within a function: the method that made it.
    asked = "" if operation is None else f" for {operation.__qualname__.split('.<locals>')[0].rpartition('.')[2]}"
    return f"{frame.f_code.co_name}{asked}"


if __name__ == "__main__":
    main()
