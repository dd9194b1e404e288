"""The optimiser of a training and the schedule of its learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from worker.engine.errors import EngineError
from worker.engine.recovery.checkpoint import State, optimizer_state, restore_optimizer
from worker.engine.recovery.training_options import FinetuneOptions


class Descent:
    """SGD or AdamW over so many steps, at a rate that falls to zero along a cosine, or stays where it is `constant`.

    Weight decay acts on the parameters that are `decayed`. Raises EngineError where there are no parameters.
    """

    def __init__(
        self,
        parameters: list[torch.nn.Parameter],
        options: FinetuneOptions,
        steps: int,
        *,
        decayed: Callable[[torch.nn.Parameter], bool],
        constant: bool,
    ) -> None:
        self._parameters, self._options, self.steps, self._constant = parameters, options, steps, constant
        self._decayed = decayed
        self.retreats = 0
        self.optimizer = self._optimizer()
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._factor)

    @property
    def rate(self) -> float:
        """Of the next step."""
        return float(self._schedule.get_last_lr()[0])

    @property
    def done(self) -> int:
        """Steps so far."""
        return self._schedule.last_epoch

    @property
    def progress(self) -> float:
        """The share of all steps that is done."""
        return self.done / self.steps

    def advance(self) -> None:
        """To the rate of the next step."""
        self._schedule.step()

    def retreat(self, step: int) -> None:
        """Go back to that step, at a tenth of the rate and without what the optimiser remembers."""
        self.retreats += 1
        self.optimizer = self._optimizer()
        for group in self.optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._factor, last_epoch=step - 1)

    def state(self) -> State:
        memory = optimizer_state(self.optimizer)
        values = {"optimizer": memory.values, "schedule": self._schedule.state_dict(), "retreats": self.retreats}
        return State(memory.tensors, values)

    def restore(self, state: State) -> None:
        """The reverse of `state`, for the same parameters and options."""
        restore_optimizer(self.optimizer, State(state.tensors, state.values["optimizer"]))
        self._schedule.load_state_dict(state.values["schedule"])
        self.retreats = state.values["retreats"]

    def _optimizer(self) -> torch.optim.Optimizer:
        options = self._options
        if not self._parameters:
            raise nothing_to_train()
        decayed = [p for p in self._parameters if self._decayed(p)]
        kept = [p for p in self._parameters if not self._decayed(p)]
        groups = [{"params": decayed, "weight_decay": options.weight_decay}, {"params": kept, "weight_decay": 0.0}]
        groups = [group for group in groups if group["params"]]
        if options.optimizer == "adamw":
            return torch.optim.AdamW(groups, lr=options.learning_rate)
        return torch.optim.SGD(groups, lr=options.learning_rate, momentum=options.momentum)

    def _factor(self, step: int) -> float:
        left: float = 0.1**self.retreats
        return left if self._constant else left * 0.5 * (1 + math.cos(math.pi * min(step / max(self.steps, 1), 1.0)))


def nothing_to_train() -> EngineError:
    return EngineError(
        "nothing_to_train",
        "No weight of the model receives a gradient.",
        "Upload a model with floating-point weights, or prune without finetuning.",
    )
