"""The machine on which something was measured."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

_LIBRARIES = (
    *("espalier", "numpy", "scipy", "pillow", "onnx", "onnxruntime", "torch", "torchvision", "safetensors"),
    *("cmaes", "optuna"),
)

_GPU_DEVICES = ("nvidia[0-9]*", "kfd", "dxg")
"""Of NVIDIA's and AMD's drivers, and of Windows' for Linux."""


@dataclass(frozen=True)
class Machine:
    """`cores` are those this process may use; `versions` are of Python and of the libraries that compute."""

    cpu: str
    cores: int
    memory_bytes: int
    gpu: str | None
    versions: dict[str, str]


def machine() -> Machine:
    """The facts of this machine and process."""
    return Machine(
        cpu=_cpu_name(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpu=_gpu_name(),
        versions={"python": platform.python_version(), **{name: metadata.version(name) for name in _LIBRARIES}},
    )


def _gpu_name() -> str | None:
    if not any(path for name in _GPU_DEVICES for path in Path("/dev").glob(name)):
        return None
    import torch  # slow to load, and nothing else that measures needs it

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def processor_flags() -> frozenset[str]:
    """The instruction sets of an x86 processor as Linux names them ("avx2"); empty for others."""
    return frozenset(_of_processor("flags").split())


def _cpu_name() -> str:
    return _of_processor("model name") or platform.processor() or platform.machine()


def _of_processor(field: str) -> str:
    """What Linux says of the first processor; empty where it says nothing."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == field), "")
