"""How far the latency table is from layers that it did not measure: outputs counted in sets of blocks, and linearly.

    python -m benchmarks.latency_table

3x3 convolutions by themselves in ONNX Runtime on one thread, at every multiple of 16 outputs. The table has their
times at a quarter, half and all of the outputs, as for a model; both ways to read it are compared with the same
measurements.
"""

from dataclasses import replace
from statistics import mean
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

from benchmarks import results
from benchmarks.machine import describe
from worker.engine.allocation.latency_table import measure_table
from worker.engine.graph import analyze
from worker.engine.measure.layer_times import BLOCK, layer_times

FILE = results.FOLDER / "latency_table.json"
LAYERS = ((128, 56), (256, 28), (512, 14))
"""(channels on both sides, height and width)"""
STEP = 16


def two_layers(channels: int, side: int) -> onnx.ModelProto:
    """The layer in question, and one that reads its outputs, so that they can be pruned."""
    rng = np.random.default_rng(0)
    weights = {
        name: numpy_helper.from_array(rng.standard_normal((outputs, channels, 3, 3), dtype=np.float32), name)
        for name, outputs in (("first", channels), ("second", 8))
    }
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["between"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["between", "second"], ["y"], pads=[1, 1, 1, 1]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, channels, side, side))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 8, side, side))
    graph = helper.make_graph(nodes, "two_layers", [x], [y], list(weights.values()))
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def measured(channels: int, side: int) -> dict[str, Any]:
    """Relative errors at all widths, in the middle and at most, of both ways to read the table."""
    layer = measure_table(analyze(two_layers(channels, side))).layers[0]
    widths = np.arange(STEP, channels + 1, STEP)
    real = np.array(layer_times(layer.shape, [(channels, int(width)) for width in widths], 1))
    row: dict[str, Any] = {"channels": channels, "side": side, "parts": [round(part, 3) for part in layer.parts]}
    for name, read in (("sets", layer), ("linear", replace(layer, parts=()))):
        off = np.abs([float(read.cost(np.array([width]))) for width in widths] / real - 1)
        row |= {f"{name}_mean_error": round(float(off.mean()), 4), f"{name}_largest_error": round(float(off.max()), 4)}
    return row


def claims(rows: list[dict[str, Any]]) -> list[results.Claim]:
    sets, linear = (mean(row[f"{name}_mean_error"] for row in rows) for name in ("sets", "linear"))
    text = f"{sets:.1%}, counted linearly {linear:.1%}"
    name = "latency table: mean error at widths that it did not measure, outputs counted in sets"
    return [results.Claim(name, 4, text, "less than counted linearly", sets < linear)]


def main() -> None:
    rows = [measured(*layer) for layer in LAYERS]
    contents = {"machine": describe("onnxruntime", "numpy"), "block": BLOCK, "rows": rows}
    results.write(FILE, contents, claims(rows))
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
