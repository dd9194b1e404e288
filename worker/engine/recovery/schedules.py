"""Pruning in rounds, with training in between: how much is left after each."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from worker.engine.methods import Options
from worker.engine.recovery.registry import RECOVERIES


class ScheduleOptions(Options):
    """Fields of a job's `schedule`."""

    steps: int = Field(default=3, ge=2, le=50, description="Rounds; the last one ends at the budget.")
    path: Literal["geometric", "linear"] = Field(
        default="geometric",
        description="geometric: every round keeps the same share of what the one before it left; linear: every round "
        "takes the same amount.",
    )
    epochs: int = Field(
        default=1, ge=1, le=1000, description="Of finetuning in each round but the last, which has finetuning.epochs."
    )


@RECOVERIES.register(
    "iterative",
    title="Iterative pruning and finetuning",
    summary="The budget is reached in rounds: scores are taken anew, some channels go, and the network is finetuned.",
    paper="Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient Inference, ICLR 2017, "
    "arXiv 1611.06440, section 2",
    cost="that of scoring, the cut, recovery and finetuning, once per round",
    uses=("gradients",),
    data="images",
    exactness="adapted",
    options=ScheduleOptions,
    asked_for_by="schedule.steps",
)
def ratio_after(goal: float, step: int, steps: int, path: str) -> float:
    """What may be left of the original after round `step` (from 1), where it is `goal` after the last."""
    done = step / steps
    return float(goal**done) if path == "geometric" else 1 - (1 - goal) * done
