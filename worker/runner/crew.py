"""The processes of one job: the first carries the order out, and the others help it wherever it trains.

They are connected before a stranger's file is opened, and cannot connect to anything afterwards. The others wait for
the first one's word, which may take hours, on a group of its own; a training is waited for no longer than _LATEST.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from worker.engine.errors import EngineError
from worker.engine.recovery import Interrupted
from worker.engine.recovery.team import Team
from worker.engine.recovery.together import Together
from worker.order import Failure, Order
from worker.runner.assignment import Assignment
from worker.runner.diagnosis import Told, diagnose
from worker.runner.interruption import Interruption, Lost
from worker.work_folder import WorkFolder

_LATEST = timedelta(minutes=30)
_FOR_EVER = timedelta(days=365)
_DISMISSED, _ASSIGNED = 0, 1


class Crew:
    """This process's connection to the others."""

    def __init__(self, folder: WorkFolder, team: Together, waiting: dist.ProcessGroup, threads: int) -> None:
        self._folder, self._team, self._waiting, self._threads = folder.tmp, team, waiting, threads
        self._broken = False

    @property
    def leads(self) -> bool:
        return self._team.rank == 0

    @contextmanager
    def training(self, assignment: Assignment, interruption: Interruption) -> Iterator[Team]:
        """The first process: in this block all of them carry the assignment out.

        Raises Told where another process said why it could not go on, and Lost where it is gone without a word. This
        one is deaf to SIGTERM then: torchrun ends the others with the first that ends, and it still has to tell why.
        """
        try:
            assignment.save(self._assignment)
            self._say(_ASSIGNED)
            with threads(self._share_of_threads):
                self._meet()
                yield self._team
        except (EngineError, Interrupted):  # comes to all of them at the same place
            raise
        except Exception as error:
            interruption.go_deaf()
            self._broken = True
            raise self._reason(error) from error

    def assignments(self) -> Iterator[tuple[Assignment, Team]]:
        """The other processes: until the first one dismisses them."""
        torch.set_num_threads(self._share_of_threads)
        while self._hear() == _ASSIGNED:
            yield Assignment.load(self._assignment), self._team

    def prepared(self) -> None:
        """The other processes: have all that the assignment needs."""
        self._meet()

    def give_up(self, error: Exception) -> None:
        """Another process than the first: leave word why, before this process's end ends the training of all."""
        failure = diagnose(error, None)
        self._word_of(self._team.rank).write_text(failure.model_dump_json())

    def dismiss(self) -> None:
        """The first process: the others may end, unless they are lost."""
        if not self._broken:
            self._say(_DISMISSED)

    def _say(self, word: int) -> None:
        dist.broadcast(torch.tensor([word]), 0, group=self._waiting)

    def _hear(self) -> int:
        said = torch.zeros(1, dtype=torch.int64)
        dist.broadcast(said, 0, group=self._waiting)
        return int(said.item())

    def _meet(self) -> None:
        """Opening the images may take one of them long."""
        dist.all_reduce(torch.ones(1), group=self._waiting)

    @property
    def _share_of_threads(self) -> int:
        return max(self._threads // self._team.processes, 1)

    def _reason(self, error: Exception) -> Exception:
        """What another process said, or that one is lost; `error` itself where it is this one's own."""
        for rank in range(1, self._team.processes):
            if self._word_of(rank).exists():
                return Told(Failure.model_validate_json(self._word_of(rank).read_bytes()))
        return Lost("another process is gone") if is_loss(error) else error

    @property
    def _assignment(self) -> Path:
        return self._folder / "assignment"

    def _word_of(self, rank: int) -> Path:
        return self._folder / f"failure{rank}.json"


@contextmanager
def threads(count: int) -> Iterator[None]:
    """That torch computes with in this block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def assemble(order: Order, folder: WorkFolder) -> Crew:
    """Connect to the other processes that torchrun started. Raises where they are not all there."""
    rank = int(os.environ["RANK"])
    store = dist.FileStore(str(folder.tmp / "processes"), order.processes)  # type: ignore[attr-defined]
    device = None
    if order.device == "cuda":
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
    dist.init_process_group(
        "gloo" if device is None else "nccl",
        store=store,
        rank=rank,
        world_size=order.processes,
        timeout=_LATEST,
        device_id=device,
    )
    group, numbers, waiting = _whole(dist.group.WORLD), _control_group(_LATEST), _control_group(_FOR_EVER)
    for each in (group, numbers, waiting):  # all connections are made by the first use, at the latest
        dist.all_reduce(torch.ones(1, device=device if each is group else None), group=each)
    return Crew(folder, Together(group, numbers), waiting, order.threads)


def is_loss(error: Exception) -> bool:
    """Whether it says that another process answers no more. gloo's errors have no type of their own."""
    return isinstance(error, dist.DistError) or "/gloo/" in str(error)


def _control_group(limit: timedelta) -> dist.ProcessGroup:
    """Of all processes, for numbers of Python."""
    return _whole(dist.new_group(backend="gloo", timeout=limit))


def _whole(group: dist.ProcessGroup | int | None) -> dist.ProcessGroup:
    if not isinstance(group, dist.ProcessGroup):
        raise RuntimeError("this process is in no group")
    return group
