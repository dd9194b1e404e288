"""Checkpoints: a training's whole state in one file, from which it goes on at the very batch where it was.

Tensors lie in a safetensors file, plain values in its header: nothing of it is a pickle. There is no random state to
keep, because every batch draws from a generator that its place in the training alone determines.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from worker.engine.disk_errors import as_os_errors

_HEADER = "training"


class Interrupted(Exception):
    """The training was told to stop; where there was anything to keep, its checkpoint is on the disk."""


@dataclass(frozen=True)
class State:
    """Tensors by name, and values that JSON can say."""

    tensors: dict[str, torch.Tensor]
    values: dict[str, Any]


@dataclass
class Checkpoints:
    """The one checkpoint file of a training: written at most every `every_s` seconds, and when `told_to_stop` says so.

    Each replaces the one before in one step; `on_saved` is called after each.
    """

    path: Path
    every_s: float = 30.0
    told_to_stop: Callable[[], bool] = lambda: False
    on_saved: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self._saved_at = time.monotonic()

    @property
    def due(self) -> bool:
        return time.monotonic() - self._saved_at >= self.every_s

    def save(self, state: State) -> None:
        """Replace the checkpoint. Raises OSError where the disk is full: the one before is still there."""
        partial = self.path.with_name(f"{self.path.name}.partial")
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.tensors.items()}
        with as_os_errors():
            save_file(tensors, partial, {_HEADER: json.dumps(state.values)})
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(self.path)
        self.on_saved()
        self._saved_at = time.monotonic()

    def load(self) -> State | None:
        """The checkpoint, None where there is none that can be read."""
        with suppress(FileNotFoundError, SafetensorError, ValueError), safe_open(self.path, "pt") as file:
            values = json.loads((file.metadata() or {}).get(_HEADER, ""))
            return State({name: file.get_tensor(name) for name in file.keys()}, values)  # noqa: SIM118 - no mapping
        return None

    def remove(self) -> None:
        """After the end of the training."""
        self.path.unlink(missing_ok=True)


def optimizer_state(optimizer: torch.optim.Optimizer) -> State:
    """What an optimiser remembers, its tensors named `parameter number.what`."""
    kept = optimizer.state_dict()
    tensors = {
        f"{number}.{name}": value
        for number, memory in kept["state"].items()
        for name, value in memory.items()
        if torch.is_tensor(value)
    }
    return State(tensors, {"groups": kept["param_groups"]})


def restore_optimizer(optimizer: torch.optim.Optimizer, state: State) -> None:
    """The reverse of `optimizer_state`, for an optimiser of the same kind over the same parameters."""
    memories: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in state.tensors.items():
        number, _, what = name.partition(".")
        memories.setdefault(int(number), {})[what] = tensor
    optimizer.load_state_dict({"state": memories, "param_groups": state.values["groups"]})


def prefixed(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Those that begin with the prefix, named without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
