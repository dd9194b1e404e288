"""Latency gained against MACs removed: our allocations and Torch-Pruning's, run in turn in one process.

`python -m benchmarks.speed [MODEL]...` measures what benchmarks/results/speed.json lacks and prints a table; every row
is written when it is done, so that an interrupted run goes on where it stopped. Weights are random: time does not
depend on them.
"""

import io
import itertools
import sys
import time
import warnings
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
import torch_pruning as tp
import torchvision
from rich.console import Console
from rich.table import Table

from benchmarks import results
from benchmarks.machine import describe
from worker.engine.allocation import (
    LatencyTable,
    allocate,
    latency_limit,
    macs_limit,
    measure_table,
    params_limit,
)
from worker.engine.criteria import score
from worker.engine.graph import Analysis, analyze
from worker.engine.graph.layers import describe_layers
from worker.engine.graph.onnx_graph import node_label
from worker.engine.measure.session import cpu_session
from worker.engine.proof import prove
from worker.engine.surgery import Plan, prune

MACS_KEPT = {"vgg16": 0.2253, "resnet34": 0.5806, "resnet50": 0.5, "mobilenet_v2": 0.5}
PARAMS_KEPT = (1.0, 0.5, 0.25, 0.1, 0.05)
"""Matrices behind the convolutions are most of a VGG's parameters, and cost time and next to no MACs."""
OPTIONS = {"shared": "once"}
"""Of our latency-aware allocation: nothing but speed counts here, which comes after residual streams by default."""
NEAR = 0.01
"""How far from that share of the MACs a model may be for a claim to hold."""
SETTINGS = tuple(itertools.product((1, 2), (1, 8)))
"""(threads, batch size)"""
SECONDS_PER_SETTING, MIN_ROUNDS, MAX_ROUNDS = 60.0, 5, 40
FILE = results.FOLDER / "speed.json"
SIZE = 224

Row = dict[str, Any]


def build(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    model: torch.nn.Module = torchvision.models.get_model(name, weights=None)
    return model.eval()


def exported(model: torch.nn.Module) -> onnx.ModelProto:
    """With a dynamic batch, BatchNormalization folded as exporters do by default."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.zeros(1, 3, SIZE, SIZE),),
            file,  # type: ignore[arg-type]
            dynamo=False,
            input_names=["x"],
            dynamic_axes={"x": {0: "batch"}},
        )
    return onnx.load_model_from_string(file.getvalue())


def torch_pruning(name: str, goal: int, *, everywhere: bool) -> onnx.ModelProto:
    """Torch-Pruning's high-level pruner at the smallest ratio whose MACs are at most the goal, by bisection."""
    images = torch.zeros(1, 3, SIZE, SIZE)
    low, high, best = 0.0, 1.0, None
    for _ in range(9):
        middle = (low + high) / 2
        model = build(name)
        last = [m for m in model.modules() if isinstance(m, torch.nn.Linear)][-1]
        tp.pruner.BasePruner(
            model,
            images,
            importance=tp.importance.MagnitudeImportance(p=2),
            pruning_ratio=middle,
            max_pruning_ratio=0.95,
            global_pruning=everywhere,
            ignored_layers=[last],
        ).step()
        macs, _ = tp.utils.count_ops_and_params(model, images)
        if macs <= goal:
            high, best = middle, model
        else:
            low = middle
    assert best is not None, "Torch-Pruning does not reach the MACs"
    return exported(best)


def uniform_at(analysis: Analysis, ratio: float) -> onnx.ModelProto:
    """Every layer cut alike, to this share of the MACs."""
    found = allocate(analysis, score(analysis, "l2"), [macs_limit(analysis, ratio)], method="uniform")
    assert found.reached, found.lines
    return proved(analysis, found.plan)


def proved(analysis: Analysis, plan: Plan) -> onnx.ModelProto:
    """Cut by the plan: what is timed computes what it should."""
    pruned = prune(analysis, plan)
    assert prove(analysis, plan, pruned, inputs_per_size=1).passed
    return pruned


def fastest_at(analysis: Analysis, ratio: float, table: LatencyTable) -> onnx.ModelProto:
    """The fastest by the table of what jobs make of this budget of MACs beside one of PARAMS_KEPT and the lowest of
    latency, to a quarter of a percent, with which the MACs still come within 1.5 % of what they may be."""
    scores, macs, best = score(analysis, "l2"), macs_limit(analysis, ratio), None
    for params in PARAMS_KEPT:
        for share in np.arange(1.5 * ratio, 0.0, -0.0025):
            latency = latency_limit(table, float(share))
            limits = [macs, params_limit(analysis, params), latency]
            found = allocate(analysis, scores, limits, method="latency", options=OPTIONS, table=lambda: table)
            if not found.reached or found.macs < 0.985 * ratio * analysis.macs:
                break
            *_, by_table = found.lines
            if best is None or by_table.value < best[0]:
                best = by_table.value, found.plan
    assert best is not None, "no latency goes with these MACs"
    return proved(analysis, best[1])


def linear_bound(analysis: Analysis, table: LatencyTable, ratio: float) -> float:
    """How many times as fast a network of these MACs is that does nothing else, all of them at the best rate that any
    whole layer of the original reaches (one thread, batch 1). Dense kernels are hardly ever faster."""
    labels = [node_label(node) for node in analysis.graph.nodes]
    macs = {layer.name: layer.macs for layer in describe_layers(analysis, analysis.full)}
    rate = max(macs[labels[layer.node]] / float(layer.cost(analysis.full)) for layer in table.layers)
    return table.whole * rate / (ratio * analysis.macs)


def variants(name: str) -> tuple[dict[str, onnx.ModelProto], float]:
    """The original and what the pruners make of it at the same MACs; the `linear_bound`."""
    original = exported(build(name))
    analysis = analyze(original)
    ratio = MACS_KEPT[name]
    goal = int(ratio * analysis.macs)
    table = measure_table(analysis)
    made = {
        "original": original,
        "ours, latency": fastest_at(analysis, ratio, table),
        "ours, MACs": uniform_at(analysis, ratio),
        "Torch-Pruning, uniform": torch_pruning(name, goal, everywhere=False),
        "Torch-Pruning, global": torch_pruning(name, goal, everywhere=True),
    }
    return made, round(linear_bound(analysis, table, ratio), 3)


def measure(models: dict[str, onnx.ModelProto], threads: int, batch: int) -> dict[str, np.ndarray]:
    """Seconds of each run by variant, (rounds,), all variants in turn in every round."""
    sessions = {name: cpu_session(model, threads, timed=True) for name, model in models.items()}
    images = np.random.default_rng(0).random((batch, 3, SIZE, SIZE), dtype=np.float32)
    for session in sessions.values():
        _seconds(session, images)
    times: dict[str, list[float]] = {name: [] for name in models}
    start, rounds = time.monotonic(), 0
    while rounds < MIN_ROUNDS or (rounds < MAX_ROUNDS and time.monotonic() - start < SECONDS_PER_SETTING):
        order = list(sessions) if rounds % 2 == 0 else list(reversed(sessions))
        for name in order:
            times[name].append(_seconds(sessions[name], images))
        rounds += 1
    return {name: np.array(values) for name, values in times.items()}


def _seconds(session: onnxruntime.InferenceSession, images: np.ndarray) -> float:
    start = time.perf_counter()
    session.run(None, {"x": images})
    return time.perf_counter() - start


def rows(name: str, models: dict[str, onnx.ModelProto], threads: int, batch: int) -> list[Row]:
    times = measure(models, threads, batch)
    macs = {variant: analyze(model).macs for variant, model in models.items()}
    original = times["original"]
    return [
        {
            "model": name,
            "variant": variant,
            "threads": threads,
            "batch": batch,
            "rounds": len(own),
            "macs_ratio": round(macs[variant] / macs["original"], 4),
            "p50_ms": round(float(np.median(own)) * 1000, 3),
            "shortest_ms": round(float(own.min()) * 1000, 3),
            "speedup": round(float(np.median(original / own)), 3),
            "speedup_of_shortest": round(float(original.min() / own.min()), 3),
            "over_uniform": round(float(np.median(times["Torch-Pruning, uniform"] / own)), 3),
        }
        for variant, own in times.items()
    ]


def claims(found: list[Row], bounds: dict[str, float]) -> list[results.Claim]:
    """The sentences of issue 4 about speed, each at the setting where it holds least."""
    made = []
    goals = (("vgg16", "speedup", 5.0), ("resnet34", "speedup", 1.72), ("vgg16", "over_uniform", 1.2))
    for model, column, goal in (*goals, ("resnet50", "over_uniform", 1.2)):
        measured = [row for row in found if row["model"] == model and row["variant"] == "ours, latency"]
        if not measured:
            continue
        compared = "the original" if column == "speedup" else "Torch-Pruning's uniform result at equal MACs"
        text = ", ".join(f"{row[column]:.2f} ({row['threads']} threads, batch {row['batch']})" for row in measured)
        shares = {row["macs_ratio"] for row in measured}
        text += f"; with {' and '.join(f'{share:.2%}' for share in sorted(shares))} of the MACs"
        if column == "over_uniform":
            theirs = {r["macs_ratio"] for r in found if (r["model"], r["variant"]) == (model, "Torch-Pruning, uniform")}
            text += f", theirs {' and '.join(f'{share:.2%}' for share in sorted(theirs))}"
        if column == "speedup":
            text += f"; {bounds[model]:.2f} if all MACs ran at the rate of the original's fastest layer"
        name = f"{model} at -{1 - MACS_KEPT[model]:.2%} MACs: times as fast as {compared}"
        # Who removes more is faster: it has to be the share that the sentence names.
        as_named = all(abs(share - MACS_KEPT[model]) <= NEAR for share in shares)
        holds = as_named and min(row[column] for row in measured) >= goal
        made.append(results.Claim(name, 4, text, f"at least {goal}", holds))
    return made


def main(names: list[str]) -> None:
    contents = results.read(FILE) or {"rows": []}
    found: list[Row] = contents["rows"]
    bounds: dict[str, float] = contents.get("bounds", {})
    for name in names or list(MACS_KEPT):
        done = {(row["threads"], row["batch"]) for row in found if row["model"] == name}
        missing = [setting for setting in SETTINGS if setting not in done]
        models: dict[str, onnx.ModelProto] = {}
        if missing:
            models, bounds[name] = variants(name)
        for threads, batch in missing:
            found += rows(name, models, threads, batch)
            machine = describe("onnxruntime", "torch", "torchvision", "torch-pruning")
            results.write(FILE, {"machine": machine, "bounds": bounds, "rows": found}, claims(found, bounds))
            show([row for row in found if (row["model"], row["threads"], row["batch"]) == (name, threads, batch)])


def show(found: list[Row]) -> None:
    table = Table(*found[0])
    for row in found:
        table.add_row(*map(str, row.values()))
    Console(width=200).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
