"""onnxsim's structured pruning on one exported model: half of the channels of the chains that it follows."""

import sys
from collections import Counter
from typing import Any

import onnx
import onnxsim.pruning

from benchmarks import memory
from benchmarks.pruners.report import Stopwatch, say
from benchmarks.pruners.warm_up import small_graph
from benchmarks.zoo import Entry, find
from worker.engine.graph import OnnxGraph, analyze, load_model
from worker.engine.graph.inputs import random_inputs


def run(entry: Entry) -> dict[str, Any]:
    onnxsim.pruning.apply_structured_pruning(small_graph(), sparsity=0.5)
    interpreter = memory.start_peak()
    model = load_model(entry.onnx_file)
    separate = _separate_constants(model)
    with Stopwatch() as pruning:
        pruned = onnxsim.pruning.apply_structured_pruning(separate, sparsity=0.5)
    result: dict[str, Any] = {
        "seconds": pruning.seconds,
        "cpu_seconds": pruning.cpu_seconds,
        "interpreter_bytes": interpreter,
        "peak_bytes": memory.peak() - interpreter,
        "model_bytes": entry.model_bytes,
    }
    original = analyze(model)
    _execute(pruned, random_inputs(OnnxGraph(model), original.facts.sizes, seed=0))
    return {"status": "pruned", **result, "macs_ratio": analyze(pruned).macs / original.macs}


def _separate_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy where each use of a constant has its own: untrained networks have many equal biases, which the exporter
    merges and onnxsim then cuts for one of their uses only. In trained ones no two are equal."""
    separate = onnx.ModelProto()
    separate.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    uses: Counter[str] = Counter()
    for node in separate.graph.node:
        for position, name in enumerate(node.input):
            uses[name] += 1
            if name in constants and uses[name] > 1:
                own = separate.graph.initializer.add()
                own.CopyFrom(constants[name])
                own.name = node.input[position] = f"{name}_use_{uses[name]}"
    return separate


def _execute(model: onnx.ModelProto, inputs: dict[str, Any]) -> None:
    """Raises what ONNX Runtime raises where the pruned model does not run."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    session.run(None, inputs)


if __name__ == "__main__":
    say(run(find(sys.argv[1])))
