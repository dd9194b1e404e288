"""`python -m worker`: a Celery worker set up for its device.

A CPU worker runs `--concurrency` jobs at once, each watched by a thread and computed by a child process; a GPU worker
(ESPALIER_DEVICE=cuda) runs one at a time, whose trainings share every GPU that it sees: for as many jobs at once, start
one per GPU, each with its own CUDA_VISIBLE_DEVICES.
"""

from __future__ import annotations

import argparse

from worker.celery_app import celery_app
from worker.settings import WorkerSettings


def celery_arguments(device: str, concurrency: int, log_level: str) -> list[str]:
    """The arguments of `celery -A worker.celery_app`."""
    # Never a forking pool: threads suffice to watch children, and a drain must reach every job's supervisor.
    pool = ["--pool", "solo"] if device == "cuda" else ["--pool", "threads", "--concurrency", str(concurrency)]
    # The workers need nothing of each other: the rows tell all.
    quiet = ["--without-gossip", "--without-mingle"]
    return ["worker", "--hostname", f"{device}-%n@%h", "--loglevel", log_level, *pool, *quiet]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    parser.add_argument("--concurrency", type=int, default=2, help="jobs at once on a CPU worker (default 2)")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    arguments = parser.parse_args()
    celery_app.worker_main(celery_arguments(WorkerSettings().device, arguments.concurrency, arguments.log_level))


if __name__ == "__main__":
    main()
