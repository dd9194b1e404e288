"""Which GPUs a worker's children will see, told without touching them: that is the children's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_DEVICES = Path("/dev")


def visible_gpus(environment: Mapping[str, str], devices: Path = _DEVICES) -> int:
    """How many, by CUDA_VISIBLE_DEVICES or else by the driver's device files.

    Of the slices of a GPU (MIG) a process sees one, however many are named.
    """
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return sum(path.name.removeprefix("nvidia").isdigit() for path in devices.glob("nvidia*"))
    names = [name.strip() for name in named.split(",")]
    valid = names[: names.index("-1")] if "-1" in names else names  # what CUDA does not find ends its list
    return 1 if any(name.startswith("MIG-") for name in valid) else sum(map(bool, valid))
