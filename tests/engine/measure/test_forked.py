"""Work in a fork: its words, and its end, however it comes."""

import os
import signal
import time

import pytest

from worker.engine.measure.forked import in_fork


def die() -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def fail() -> str:
    raise ValueError("no")


def linger() -> str:
    time.sleep(60)
    return "late"


def test_what_it_returns_is_heard_whole_and_what_it_does_stays_there():
    held: list[int] = []

    def work() -> str:
        held.append(1)
        return "é" * 200_000  # more than a pipe holds

    assert in_fork(work, seconds=60) == "é" * 200_000
    assert held == []


@pytest.mark.parametrize("work", [die, fail])
def test_one_that_does_not_come_to_its_end_says_nothing(work):
    assert in_fork(work, seconds=60) is None


def test_garbage_is_left_alone_there():
    """A session's end waits for its threads, and a fork has none of them."""

    class Waiting:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            if os.getpid() != parent:
                time.sleep(60)

    def work() -> str:
        Waiting()
        return str(len([[[]] for _ in range(200_000)]))  # as much as sets off several collections

    parent = os.getpid()
    Waiting()
    assert in_fork(work, seconds=30) == "200000"


def test_it_may_take_so_many_seconds_and_no_more():
    assert in_fork(linger, seconds=1) is None
