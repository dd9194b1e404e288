"""Orders for an attempt, without a job plane around it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import onnx

from worker.order import InputFile, Order
from worker.sandbox import Limits
from worker.work_folder import WorkFolder


def order_for(folder: WorkFolder, model: onnx.ModelProto, images: bytes | None, events_fd: int, **spec: Any) -> Order:
    """To prune the model to half of its MACs; model and images are written to the folder."""
    ids = {"model_id": f"mdl_{0:032x}"} | ({"dataset_id": f"dst_{0:032x}"} if images is not None else {})
    dataset = None if images is None else _kept(folder.inputs / "images.npz", images, "npz").model_dump()
    return first_attempt(
        kind="prune",
        spec={"kind": "prune", **ids, "budget": {"macs_ratio": 0.5}, **spec},
        model=_kept(folder.inputs / "model.onnx", model.SerializeToString(), "onnx").model_dump(),
        dataset=dataset,
        events_fd=events_fd,
    )


def first_attempt(**of_the_job: Any) -> Order:
    """On the CPU, in one thread."""
    return Order.model_validate(
        {
            "job_id": "job",
            "attempt": 1,
            "device": "cpu",
            "threads": 1,
            "checkpoint_s": 30,
            "sandbox": "T0",
            "limits": Limits(),
            "parent_pid": os.getpid(),
            **of_the_job,
        }
    )


def _kept(path: Path, content: bytes, format: str) -> InputFile:
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    return InputFile(path=path, name=path.name, format=format, sha256=digest, size_bytes=len(content), details={})
