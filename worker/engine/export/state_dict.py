"""The pruned weights as safetensors, keyed by the names of the torchvision network's state dict."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import load_file, save_file

from worker.engine.disk_errors import as_os_errors
from worker.engine.errors import EngineError
from worker.engine.graph import sample_inputs
from worker.engine.measure.session import cpu_session

_TOLERANCE = 1e-4


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


def check_slim_network(pruned: onnx.ModelProto, architecture: str, path: Path) -> None:
    """Load the weights in `path` as `examples/load_slim.py` does. Raises EngineError where the architecture's code does
    not compute with these widths what the pruned model does, as where it halves the channels (ShuffleNet)."""
    import torch  # the other exports need it not
    import torchvision

    inputs = sample_inputs(pruned, batch=2)
    expected = cpu_session(pruned).run(None, inputs)[0]
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            network = torchvision.models.get_model(architecture, weights=None)
            for name, array in load_file(path).items():
                layer, _, attribute = name.rpartition(".")
                module, value = network.get_submodule(layer), torch.from_numpy(array)
                if isinstance(module, torch.nn.Conv2d) and module.groups == module.in_channels > 1:
                    module.groups = len(value)  # depthwise
                if attribute in module._parameters:
                    module._parameters[attribute] = torch.nn.Parameter(value)
                else:
                    module._buffers[attribute] = value
            found = network.eval()(*map(torch.from_numpy, inputs.values())).numpy()
        error = float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))
        fault = f"its output is off by {error:.1e}" if not error <= _TOLERANCE else ""
    except (RuntimeError, AssertionError, ValueError, AttributeError) as failure:
        fault = str(failure).splitlines()[0].rstrip(".")
    if fault:
        raise EngineError(
            "no_state_dict",
            f"torchvision's {architecture} does not compute with these widths what the pruned model does: {fault}.",
            "Leave export.safetensors out; the ONNX file holds the whole model.",
        )


def _is_weight(tensor: onnx.TensorProto) -> bool:
    """State-dict names have dots; constants that the exporter made have none, or are integers."""
    return "." in tensor.name and tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
