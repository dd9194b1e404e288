"""An ONNX graph executed by torch, with weights that can be trained and written back."""

from worker.engine.torch_form.builder import build
from worker.engine.torch_form.form import TorchForm
from worker.engine.torch_form.parity import parity, parity_but_for_rounding

__all__ = ["TorchForm", "build", "parity", "parity_but_for_rounding"]
