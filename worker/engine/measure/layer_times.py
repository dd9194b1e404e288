"""How long single layers take in ONNX Runtime at a grid of widths, from its own profile of their kernels.

A layer runs as a model of its own. Its profile tells the kernel's time apart from the reordering of its input and
output, which in a whole network happens once at its borders. Widths are measured in turn, round after round, so that
what disturbs one disturbs all; the shortest run counts.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from worker.engine.measure.machine import processor_flags

BLOCK = 8 if {"avx2", "avx512f"} & processor_flags() == {"avx2"} else 16
"""ONNX Runtime computes convolutions in blocks of as many channels as a vector register holds, and fills the last one
up."""
SET = 4
"""So many blocks of outputs are computed at a time; fewer, at the end, take more time for each."""
ROUNDS = 3
WARM_UP_RUNS = 1
_BORDER_OPS = frozenset(["ReorderInput", "ReorderOutput"])


@dataclass(frozen=True)
class LayerShape:
    """A layer but for its widths. `data` is the input's shape without channels: (batch, height, width) of a Conv, the
    rows of a Gemm. `group` 0 is depthwise, with `multiplier` outputs per input."""

    op: str
    data: tuple[int, ...]
    kernel: tuple[int, ...] = ()
    attributes: tuple[tuple[str, tuple[int, ...] | str], ...] = ()
    group: int = 1
    multiplier: int = 1

    def model(self, inputs: int, outputs: int) -> onnx.ModelProto:
        """The layer by itself at these widths, with random weights."""
        rng = np.random.default_rng(0)
        attributes: dict[str, Any] = dict(self.attributes)
        shape: tuple[int, ...] = (self.data[0], inputs, *self.data[1:])
        weight: tuple[int, ...]
        if self.op in ("Gemm", "MatMul"):
            shape, weight = (*self.data, inputs), (inputs, outputs)
        elif self.op == "ConvTranspose":
            weight = (inputs, outputs, *self.kernel)
        else:
            group = inputs if self.group == 0 else self.group
            weight = (outputs, inputs // group, *self.kernel)
            attributes["group"] = group
        some = rng.standard_normal(4096, dtype=np.float32) / math.sqrt(max(int(np.prod(weight[1:])), 1))
        values = np.resize(some, weight)
        graph = helper.make_graph(
            [helper.make_node(self.op, ["x", "w"], ["y"], **attributes)],
            "layer",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [onnx.ValueInfoProto(name="y")],
            [numpy_helper.from_array(values, "w")],
        )
        return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def layer_times(
    shape: LayerShape,
    widths: Sequence[tuple[int, int]],
    threads: int,
    rounds: int = ROUNDS,
    on_progress: Callable[[float], None] = lambda share: None,
) -> list[float]:
    """Milliseconds of the layer at each pair of (inputs, outputs)."""
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for number, (inputs, outputs) in enumerate(widths):
            model = shape.model(inputs, outputs)
            dims = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
            session = _profiled(model, threads, Path(folder) / str(number))
            runs.append((session, {"x": np.ones(dims, dtype=np.float32)}))
        for done in range(WARM_UP_RUNS + rounds):
            for session, inputs_by_name in runs:
                session.run(None, inputs_by_name)
            on_progress((done + 1) / (WARM_UP_RUNS + rounds))
        return [_shortest(Path(session.end_profiling()), WARM_UP_RUNS + rounds) for session, _ in runs]


def _profiled(model: onnx.ModelProto, threads: int, prefix: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.inter_op_num_threads, options.intra_op_num_threads = 1, threads
    options.enable_profiling, options.profile_file_prefix = True, str(prefix)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _shortest(profile: Path, runs: int) -> float:
    """The kernel time of the shortest run after the warm-up, in milliseconds."""
    events = json.loads(profile.read_text())
    times = [
        event["dur"]
        for event in events
        if event.get("cat") == "Node"
        and event["name"].endswith("_kernel_time")
        and event["args"].get("op_name") not in _BORDER_OPS
    ]
    per_run = np.array(times, dtype=np.float64).reshape(runs, -1).sum(axis=1)
    return float(per_run[WARM_UP_RUNS:].min()) / 1000
