"""Masks as a file beside the model: one .npz of packed bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from worker.engine.masks.weights import Masks


def save_masks(path: Path, masks: Masks) -> None:
    """Write the masks under the names of their weights."""
    arrays: dict[str, np.ndarray] = {}
    for number, (name, mask) in enumerate(masks.items()):  # a weight's name may be no name of a file
        arrays[f"name_{number}"] = np.array(name)
        arrays[f"shape_{number}"] = np.array(mask.shape)
        arrays[f"bits_{number}"] = np.packbits(mask)
    np.savez_compressed(path, allow_pickle=False, **arrays)


def load_masks(path: Path) -> dict[str, np.ndarray]:
    """What `save_masks` wrote; no masks where there is no file."""
    if not path.exists():
        return {}
    masks = {}
    with np.load(path, allow_pickle=False) as file:
        for number in range(len(file.files) // 3):
            shape = tuple(file[f"shape_{number}"].tolist())
            bits = np.unpackbits(file[f"bits_{number}"], count=int(np.prod(shape)))
            masks[str(file[f"name_{number}"])] = bits.reshape(shape).astype(bool)
    return masks
