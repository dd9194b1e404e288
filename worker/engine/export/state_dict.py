"""The pruned weights as safetensors, keyed by the names of the torchvision network's state dict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

from worker.engine.disk_errors import as_os_errors
from worker.engine.errors import EngineError


def save_state_dict(original: onnx.ModelProto, pruned: onnx.ModelProto, architecture: str, path: Path) -> int:
    """Write the pruned weights under the names that they have in both models; the number of tensors.

    The file's metadata name the architecture; `examples/load_slim.py` makes the PyTorch network of it. Raises
    EngineError where a weight has changed its name or was copied: then no state dict of this architecture holds it.
    Raises OSError where the disk is full.
    """
    weights = {tensor.name: tensor for tensor in pruned.graph.initializer if _is_weight(tensor)}
    expected = {tensor.name for tensor in original.graph.initializer if _is_weight(tensor)}
    if set(weights) != expected:
        strange = sorted(set(weights) ^ expected)
        raise EngineError(
            "no_state_dict",
            f"{len(strange)} weights of the pruned model have no place of their own in {architecture}'s state dict "
            f"({', '.join(strange[:5])}).",
            "Leave export.safetensors out; the ONNX file holds the whole model.",
        )
    arrays = {name: np.ascontiguousarray(numpy_helper.to_array(tensor)) for name, tensor in weights.items()}
    with as_os_errors():
        save_file(arrays, path, metadata={"architecture": architecture})
    return len(arrays)


def _is_weight(tensor: onnx.TensorProto) -> bool:
    """State-dict names have dots; constants that the exporter made have none, or are integers."""
    return "." in tensor.name and tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
