"""What allocations keep for other budgets, and how long it took."""

from __future__ import annotations

import time

import pytest

from worker.engine.allocation import Memory


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    now = iter(range(0, 10_000, 5))  # whatever is worked out takes 5 s
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    return Memory()


def test_the_time_of_what_was_known_before_is_told_once(memory: Memory) -> None:
    model = object()
    for _ in range(2):
        assert memory.once("scores", model, lambda: "found") == "found"
    with memory.sparing() as spared:
        for _ in range(2):
            memory.once("scores", model, lambda: "not asked for again")
            memory.once("losses", model, lambda: "new")
    assert spared == {"scores": 5, "losses": 0}


def test_what_was_found_of_another_object_is_found_anew(memory: Memory) -> None:
    first, second = object(), object()
    assert memory.once("scores", first, lambda: 1) == 1
    with memory.sparing() as spared:
        assert memory.once("scores", second, lambda: 2) == 2
    assert spared == {"scores": 0}
