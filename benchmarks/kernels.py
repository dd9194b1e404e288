"""Time gained by the grouped kernel layout in ONNX Runtime, on stacks of convolutions of several shapes.

`python -m benchmarks.kernels` writes results/kernels.json. Weights are random: time does not depend on them. Every
stack is run dense, in the layout that jobs export (Gather, then a Conv with `group`), and as Gather and Conv per block
with a Concat behind them, in turn in one process.
"""

import argparse
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper
from rich.console import Console
from rich.table import Table

from benchmarks import machine, results
from worker.engine.kernels import group_kernels
from worker.engine.kernels.proof import prove_layout
from worker.engine.measure import Latency, latency

FILE = results.FOLDER / "kernels.json"
DEPTH = 4


class Stack(NamedTuple):
    channels: int
    size: int
    kernel: int
    sparsity: float
    blocks: int


CLAIMED = (Stack(256, 28, 3, 0.5, 4), Stack(256, 28, 3, 0.75, 4))
OTHERS = (
    Stack(256, 28, 3, 0.5, 2),
    Stack(256, 28, 3, 0.75, 8),
    Stack(64, 56, 3, 0.5, 4),
    Stack(64, 56, 3, 0.75, 4),
    Stack(512, 14, 3, 0.5, 4),
    Stack(512, 14, 3, 0.75, 4),
    Stack(64, 8, 3, 0.5, 4),
    Stack(256, 28, 1, 0.5, 4),
    Stack(256, 28, 1, 0.75, 4),
)
GOALS = {0.5: 1.8, 0.75: 3.0}


def stack(shape: Stack, seed: int = 0) -> onnx.ModelProto:
    """Convolutions with ReLU, one after the other, all of `channels` channels."""
    rng = np.random.default_rng(seed)
    nodes, weights, tensor = [], [], "x"
    for layer in range(DEPTH):
        scale = (2 / (shape.channels * shape.kernel**2)) ** 0.5
        value = rng.normal(0, scale, (shape.channels, shape.channels, shape.kernel, shape.kernel))
        weights.append(numpy_helper.from_array(value.astype(np.float32), f"w{layer}"))
        pads = [shape.kernel // 2] * 4
        nodes.append(helper.make_node("Conv", [tensor, f"w{layer}"], [f"c{layer}"], f"conv{layer}", pads=pads))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]))
        tensor = f"r{layer}"
    dims: list[str | int | None] = ["batch", shape.channels, shape.size, shape.size]
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims) for name in ("x", tensor)]
    graph = helper.make_graph(nodes, "stack", values[:1], values[1:], weights)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def in_separate_convolutions(model: onnx.ModelProto) -> onnx.ModelProto:
    """A grouped layout with a Gather and a Conv per block, and a Concat behind them."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        blocks = attributes.pop("group", 1) if node.op_type == "Conv" else 1
        if blocks == 1:
            nodes.append(node)
            continue
        gather = makers[node.input[0]]
        nodes.remove(gather)
        reads, weights = np.split(stored[gather.input[1]], blocks), np.split(stored[node.input[1]], blocks)
        for block, (indices, weight) in enumerate(zip(reads, weights, strict=True)):
            stem = f"{node.output[0]}/{block}"
            other.graph.initializer.append(numpy_helper.from_array(indices, f"{stem}/reads"))
            other.graph.initializer.append(numpy_helper.from_array(weight, f"{stem}/weight"))
            nodes.append(helper.make_node("Gather", [gather.input[0], f"{stem}/reads"], [f"{stem}/x"], axis=1))
            nodes.append(helper.make_node("Conv", [f"{stem}/x", f"{stem}/weight"], [stem], **attributes))
        parts = [f"{node.output[0]}/{block}" for block in range(blocks)]
        nodes.append(helper.make_node("Concat", parts, [node.output[0]], axis=1))
    del other.graph.node[:]
    other.graph.node.extend(nodes)
    return other


def measure(shape: Stack, rounds: int) -> dict[str, Any]:
    """One row: both forms against the dense stack, each with its proof."""
    dense = stack(shape)
    grouped = group_kernels(dense, shape.sparsity, blocks=shape.blocks)
    proof = prove_layout(dense, grouped)
    (exported,) = latency(dense, grouped.model, threads=1, rounds=rounds)
    (separate,) = latency(dense, in_separate_convolutions(grouped.model), threads=1, rounds=rounds)
    return {
        **shape._asdict(),
        "kernels_kept": float(np.mean([layer.mask.mean() for layer in grouped.layers])),
        "proof_error": proof.max_relative_error,
        "proved": proof.passed,
        "exported": _times(exported),
        "separate_convolutions": _times(separate),
    }


def _times(row: Latency) -> dict[str, float]:
    return {
        "dense_ms": row.original.p50_ms,
        "grouped_ms": row.pruned.p50_ms,
        "speedup": row.speedup,
        "speedup_low": row.speedup_low,
        "speedup_high": row.speedup_high,
        "noise": row.noise,
    }


def claims(rows: list[dict[str, Any]]) -> list[results.Claim]:
    """The two sentences of issue 4 about time, on the stack that they name."""
    found = []
    for row in rows:
        if Stack(*(row[name] for name in Stack._fields)) in CLAIMED:
            goal, speedup = GOALS[row["sparsity"]], row["exported"]["speedup"]
            name = f"256-channel 3x3 convolutions at {row['sparsity']:.0%} kernel sparsity, grouped layout: speed-up"
            found.append(results.Claim(name, 4, f"{speedup:.2f}x", f">= {goal}x", row["proved"] and speedup >= goal))
    return found


def table(rows: list[dict[str, Any]]) -> Table:
    shown = Table(title="Stacks of 4 convolutions, batch 1, one thread, ONNX Runtime")
    for heading in (
        "channels",
        "size",
        "kernel",
        "sparsity",
        "blocks",
        "dense",
        "grouped",
        "as fast",
        "separate convs",
    ):
        shown.add_column(heading, justify="right")
    for row in rows:
        times, other = row["exported"], row["separate_convolutions"]
        shown.add_row(
            *(str(row[name]) for name in Stack._fields),
            f"{times['dense_ms']:.2f} ms",
            f"{times['grouped_ms']:.2f} ms",
            f"{times['speedup']:.2f}x ({times['speedup_low']:.2f} to {times['speedup_high']:.2f})",
            f"{other['speedup']:.2f}x",
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--quick", action="store_true", help="only the stacks of the claims")
    arguments = parser.parse_args()
    shapes = CLAIMED if arguments.quick else CLAIMED + OTHERS
    rows = [measure(shape, arguments.rounds) for shape in shapes]
    found = claims(rows)
    results.write(FILE, {"machine": machine.describe("onnxruntime", "numpy"), "rows": rows}, found)
    console = Console()
    console.print(table(rows))
    for claim in found:
        console.print(f"{'yes' if claim.holds else 'NO '}  {claim.name} {claim.value}, goal {claim.goal}")


if __name__ == "__main__":
    main()
