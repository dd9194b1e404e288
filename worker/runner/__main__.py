"""`python -m worker.runner <work folder>`: carries out one order. Started by the supervisor, never by hand.

By the launcher with its process id as second argument, where the order is carried out by several processes.
"""

import sys
from pathlib import Path

from worker import sandbox
from worker.order import Order
from worker.work_folder import WorkFolder


def main() -> int:
    folder = WorkFolder(Path(sys.argv[1]))
    order = Order.model_validate_json(folder.order.read_bytes())
    if order.processes > 1:
        from worker.runner.member import join

        join(order, folder, launcher_pid=int(sys.argv[2]))
    sandbox.enter(order.sandbox, order.limits, order.parent_pid, readable=(folder.root,), writable=folder.writable)
    # Only now: the parsers and the engine are imported, and the stranger's file is opened, inside the sandbox.
    from worker.runner.attempt import carry_out

    return carry_out(order, folder)


if __name__ == "__main__":
    sys.exit(main())
