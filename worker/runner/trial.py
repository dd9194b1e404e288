"""ONNX Runtime has the last word: a model is ready when it loads and runs there.

Its graph is checked as a whole when it loads (types, order, attributes), so that the engine never sees a broken one.
onnx.checker would not do: it refuses models that run everywhere, such as those with outputs of undeclared shape.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime

from worker.engine.errors import EngineError
from worker.engine.graph import Analysis
from worker.engine.graph.inputs import random_inputs
from worker.engine.graph.onnx_graph import OnnxGraph
from worker.engine.graph.runtime import RUNTIME_ERRORS

_HINT = "Check that onnxruntime loads and runs the file, with inputs of the shapes that it declares."
_OLDEST_OPSET = 7
"""Before it, ONNX Runtime has implementations of few ops."""


def load(path: Path) -> onnxruntime.InferenceSession:
    """A session without optimisations, which would run parts of the graph. Raises EngineError."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except RUNTIME_ERRORS as error:
        told = str(error).replace(str(path), path.name)  # where it lies here is nobody's business
        message = f"ONNX Runtime cannot load the model: {told[:1000]}"
        raise EngineError("model_does_not_load", message, _way_out(path)) from error


def _way_out(path: Path) -> str:
    opset = OnnxGraph(onnx.load(path, load_external_data=False)).opset
    if opset >= _OLDEST_OPSET:
        return _HINT
    return (
        f"The file is of opset {opset}, and ONNX Runtime runs opset {_OLDEST_OPSET} and later: "
        "export the network anew, or convert the file with onnx.version_converter."
    )


def try_to_run(session: onnxruntime.InferenceSession, analysis: Analysis) -> None:
    """Run on random inputs at the size of the analysis. Raises EngineError where that fails."""
    try:
        session.run(None, random_inputs(analysis.graph, analysis.facts.sizes, seed=0))
    except RUNTIME_ERRORS as error:
        message = f"ONNX Runtime cannot run the model: {str(error)[:1000]}"
        raise EngineError("model_does_not_run", message, _HINT) from error
