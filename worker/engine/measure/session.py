"""ONNX Runtime sessions, set up the same way wherever something is measured."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime

from worker.engine.errors import EngineError


def cpu_session(
    model: onnx.ModelProto | Path, threads: int | None = None, *, timed: bool = False
) -> onnxruntime.InferenceSession:
    """A session on the CPU with `threads` threads inside an op (all cores, where None).

    Where it is `timed` its threads spin while they wait for work, as they do for whoever runs the model with ONNX
    Runtime's defaults. Otherwise they leave their cores to other jobs meanwhile.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.inter_op_num_threads = 1
    # Threads of a session go on spinning for a while after a run, and would take cores from the model measured next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if not timed:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise EngineError(
            "not_runnable",
            f"ONNX Runtime cannot load the model: {error}.",
            "Check that the model which was uploaded loads in onnxruntime; where it does, report it.",
        ) from error
