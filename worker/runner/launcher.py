"""`python -m worker.runner.launcher <work folder>`: carries out one order in several processes, which torchrun starts.
Started by the supervisor, never by hand.

It is not confined, as it has to start programs; so it reads its order, and nothing that a stranger or a confined
process wrote. torchrun finds other machines by a port that anybody can send a pickle to: here are none to find.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path

import torch
from torch.distributed import HashStore  # type: ignore[attr-defined]
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)
from torch.distributed.run import main as torchrun

from models_store.documents.event import ErrorClass, JobError
from worker import sandbox
from worker.order import EXIT_LOST, Failure, Order
from worker.work_folder import WorkFolder

_BACKEND = "one_machine"
_ENVIRONMENT = {
    "PYTHONSAFEPATH": "1",
    # All that connects processes is there before they are confined: over loopback, and at once.
    "GLOO_SOCKET_IFNAME": "lo",
    "TORCH_GLOO_LAZY_INIT": "0",
    "NCCL_SOCKET_IFNAME": "lo",
    "NCCL_IB_DISABLE": "1",
    "NCCL_RUNTIME_CONNECT": "0",
    # These would need /dev/shm, or sockets that one process has and another one finds by name.
    "NCCL_SHM_DISABLE": "1",
    "NCCL_CUMEM_ENABLE": "0",
    "NCCL_CUMEM_HOST_ENABLE": "0",
    "NCCL_NVLS_ENABLE": "0",
}
_SHUTDOWN_S = 24 * 3600  # the supervisor decides how long a process has to leave a checkpoint


class OneMachine(RendezvousHandler):
    """Where all processes are this launcher's own."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id

    def get_backend(self) -> str:
        return _BACKEND

    def next_rendezvous(self) -> RendezvousInfo:
        return RendezvousInfo(HashStore(), 0, 1, RendezvousStoreInfo("localhost", 0))

    def is_closed(self) -> bool:
        return False

    def set_closed(self) -> None:
        pass

    def num_nodes_waiting(self) -> int:
        return 0

    def get_run_id(self) -> str:
        return self._run_id

    def shutdown(self) -> bool:
        return True


def main() -> int:
    folder = WorkFolder(Path(sys.argv[1]))
    order = Order.model_validate_json(folder.order.read_bytes())
    sandbox.die_with_parent(order.parent_pid)
    if order.device == "cuda" and torch.cuda.device_count() < order.processes:
        folder.failure.write_text(_too_few_gpus(order.processes).model_dump_json())
        return 1
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ.update(_ENVIRONMENT)
    rendezvous_handler_registry.register(_BACKEND, _rendezvous)
    try:
        torchrun(_arguments(order, folder))
    except ChildFailedError as error:
        codes = [failure.exitcode for failure in error.failures.values()]  # in the order of their ends
        return _end_as(next((code for code in codes if code != EXIT_LOST), EXIT_LOST))
    except SignalException as stopped:
        return _end_as(-stopped.sigval)
    return 0


def _rendezvous(parameters: RendezvousParameters) -> RendezvousHandler:
    return OneMachine(parameters.run_id)


def _arguments(order: Order, folder: WorkFolder) -> list[str]:
    options = {
        "nproc-per-node": order.processes,
        "max-restarts": 0,
        "rdzv-backend": _BACKEND,
        "rdzv-endpoint": "localhost",
        "rdzv-id": order.job_id,
        "log-dir": folder.root / "launcher",  # which confined processes cannot write
        "shutdown-timeout": _SHUTDOWN_S,
    }
    runner = ["-m", "worker.runner", str(folder.root), str(os.getpid())]
    return [f"--{name}={value}" for name, value in options.items()] + runner


def _too_few_gpus(wanted: int) -> Failure:
    error = JobError(
        code="too_few_gpus",
        error_class=ErrorClass.INFRASTRUCTURE,
        message=f"The worker is to train in {wanted} processes, and torch finds {torch.cuda.device_count()} GPUs.",
        hint="Set ESPALIER_TRAINING_PROCESSES to the number of GPUs that nvidia-smi lists, or see to the driver.",
    )
    return Failure(error=error, retry=False)


def _end_as(exit_code: int) -> int:
    """As the process that ended first did, by a signal if it was one: it is what the supervisor is to know."""
    if exit_code < 0:
        if -exit_code != signal.SIGKILL:  # torchrun catches others
            signal.signal(-exit_code, signal.SIG_DFL)
        os.kill(os.getpid(), -exit_code)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
