"""Other files of a pruned model, each checked against the float32 ONNX model by running both."""

from worker.engine.export.agreement import Agreement, agreement
from worker.engine.export.float16_range import too_large_for_float16
from worker.engine.export.half_precision import to_half_precision
from worker.engine.export.int8 import quantise
from worker.engine.export.state_dict import check_slim_network, save_state_dict

__all__ = [
    "Agreement",
    "agreement",
    "check_slim_network",
    "quantise",
    "save_state_dict",
    "to_half_precision",
    "too_large_for_float16",
]
