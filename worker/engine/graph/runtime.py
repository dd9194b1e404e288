"""ONNX Runtime on the CPU, as the engine uses it for facts and proofs."""

import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import EncodeError

from worker.engine.graph.onnx_graph import Array

_STATE = onnxruntime.capi.onnxruntime_pybind11_state
RUNTIME_ERRORS = (
    _STATE.EPFail,
    _STATE.Fail,
    _STATE.InvalidArgument,
    _STATE.InvalidGraph,
    _STATE.InvalidProtobuf,
    _STATE.NoSuchFile,
    _STATE.NotImplemented,
    _STATE.RuntimeException,
)
_INPUT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


class Session:
    """A model loaded without fusions, so that every tensor named as an output exists."""

    def __init__(self, model: onnx.ModelProto, *, optimised: bool) -> None:
        options = onnxruntime.SessionOptions()
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_BASIC if optimised else levels.ORT_DISABLE_ALL
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # cores are left to other jobs
        if not optimised:
            # A tensor of which only the shape is wanted is freed early; planning its reuse would take longer.
            options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
            options.enable_mem_reuse = False
        self._session = _load(model, options)
        self._types = {i.name: _INPUT_TYPES.get(i.type) for i in self._session.get_inputs()}
        self.outputs: list[str] = [o.name for o in self._session.get_outputs()]

    def run(self, inputs: dict[str, Array]) -> list[object]:
        """All outputs. Float inputs are converted to the types that the model wants."""
        fed = {name: value.astype(self._types[name] or value.dtype, copy=False) for name, value in inputs.items()}
        return list(self._session.run(self.outputs, fed))


def _load(model: onnx.ModelProto, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    providers = ["CPUExecutionProvider"]
    with suppress(EncodeError):
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
    # A protobuf message cannot hold more than 2 GiB: the weights go into a file beside it.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, str(path), save_as_external_data=True, location="weights")
        onnx.load_external_data_for_model(model, folder)  # saving moved them out of the message
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
