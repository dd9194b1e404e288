"""Plans by estimates are put right by what is measured."""

from __future__ import annotations

import pytest

from worker.engine.allocation import Allocation, Line
from worker.engine.surgery import Plan
from worker.runner.correction import CORRECTIONS, MUCH_LESS, corrected


class Model:
    """One whose measured latency is `factor` times its estimate, and whose file holds `overhead` bytes more. Plans are
    told apart by their MACs, which are the latency allowed, in thousandths, in steps of `step`."""

    def __init__(self, goal: float, factor: float, overhead: int = 0, step: int = 1, floor: int = 0) -> None:
        self.goal, self.factor, self.overhead, self.step, self.floor = goal, factor, overhead, step, floor
        self.told: list[str] = []

    def plan(self, tightening: float = 1.0, fewer_bytes: int = 0) -> Allocation:
        allowed = self.goal * tightening
        macs = max(min(int(1000 * allowed), 1000) // self.step * self.step, self.floor)
        lines = (Line("latency_ratio", allowed, macs / 1000),)
        return Allocation(Plan({}), macs, 5000 - fewer_bytes, lines)

    def excess(self, plan: Allocation) -> tuple[float, int]:
        return plan.macs / 1000 * self.factor / self.goal, plan.params + self.overhead - 5000

    def corrected(self) -> Allocation:
        return corrected(self.plan(), self.excess, self.plan, self.told.append)


@pytest.mark.parametrize("factor", [0.1, 0.4, 0.89, 0.95, 1.0, 1.2, 3.0])
def test_latency_comes_out_just_below_what_is_allowed(factor: float) -> None:
    latency, _ = (model := Model(0.4, factor)).excess(model.corrected())
    whole = factor * 1.0 / 0.4
    assert MUCH_LESS < latency <= 1 or (latency == pytest.approx(whole) and whole <= MUCH_LESS)
    assert len(model.told) <= CORRECTIONS


def test_what_is_near_enough_stays_as_it_is() -> None:
    model = Model(0.4, 0.95)
    assert model.corrected() == model.plan()
    assert model.told == []


def test_a_plan_that_keeps_the_budget_is_not_given_up_for_one_that_does_not() -> None:
    """Widths move in steps: the next wider plan is too slow."""
    model = Model(0.4, 0.9, step=250)
    found = model.corrected()
    assert (found.macs, model.excess(found)[0]) == (250, pytest.approx(0.5625))
    assert model.excess(model.plan(1.3))[0] > 1
    model = Model(0.4, 1.2, step=100)
    assert model.excess(model.corrected())[0] <= 1


def test_a_file_that_is_too_large_loses_what_it_is_over() -> None:
    model = Model(1.0, 1.0, overhead=300)
    found = model.corrected()
    assert (found.params, model.excess(found)[1]) == (4700, 0)
    assert model.told == ["the file is 300 bytes larger than what is allowed: pruning more"]


def test_what_no_plan_reaches_is_not_corrected() -> None:
    model = Model(0.1, 1.0, floor=400)
    assert model.corrected() == model.plan()
    assert model.told == []


def test_what_estimates_call_out_of_reach_may_be_measured_below_the_goal() -> None:
    model = Model(0.1, 0.1, floor=400)
    assert model.excess(model.plan())[0] == pytest.approx(0.4)
    assert MUCH_LESS < model.excess(model.corrected())[0] <= 1


def test_the_next_plan_lies_between_one_that_was_too_slow_and_one_that_was_not() -> None:
    """The first part of the MACs is free, so that estimates mislead."""

    class Misleading(Model):
        def excess(self, plan: Allocation) -> tuple[float, int]:
            return max(plan.macs - 300, 60) / 1000 / self.goal, 0

    model = Misleading(0.3, 1.0)
    assert MUCH_LESS < model.excess(model.corrected())[0] <= 1
    assert [text.rpartition(" ")[2] for text in model.told][:2] == ["less", "more"]
