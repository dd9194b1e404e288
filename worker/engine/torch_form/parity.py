"""How far the torch form is from ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
import torch

from worker.engine.graph.choices import COMPARISONS, choices, compares_alike, own_choice, with_given_choices
from worker.engine.graph.facts import inferred_types
from worker.engine.graph.inputs import given_inputs
from worker.engine.graph.onnx_graph import OnnxGraph, node_label
from worker.engine.graph.precision import settle
from worker.engine.graph.rounding import Difference, judged, measured_rounding
from worker.engine.graph.saturation import saturated
from worker.engine.torch_form.builder import build
from worker.engine.torch_form.failures import as_engine_error
from worker.engine.torch_form.form import TorchForm
from worker.engine.torch_form.operation import TORCH_DTYPES
from worker.engine.torch_form.single_precision import in_single_precision


def parity(model: onnx.ModelProto, form: TorchForm, inputs: Mapping[str, np.ndarray]) -> float:
    """The largest relative error over the outputs, max|onnx - torch| / max|onnx|, in evaluation mode.

    Half-precision models are compared as float32 models, which is how the torch form computes them.
    """
    reference = run_onnx(in_single_precision(model), inputs)
    computed = run_form(form, inputs)
    return max((relative_error(a, b) for a, b in zip(reference, computed, strict=True)), default=0.0)


def parity_but_for_rounding(
    model: onnx.ModelProto, inputs: Mapping[str, np.ndarray], tolerance: float
) -> tuple[Difference, tuple[str, ...]]:
    """As `parity`, where rounding alone may set the two apart; and the nodes that choose among near ties (TopK, say).

    The torch form is given what ONNX Runtime chose, and compared at what there was to choose from; a threshold that it
    sees passed by numbers further away from it than rounding took them is an error without measure; activations are not
    quantised; what rounding accounts for is excused (see graph.rounding), and what goes into a sigmoid is compared as
    well as what comes out of it.
    """
    settled = onnx.ModelProto()
    settled.CopyFrom(model)
    settle(settled)
    graph = OnnxGraph(settled)
    chosen, behind = choices(graph, inferred_types(graph)), saturated(graph)
    wanted = [value.name for value in settled.graph.output if value.name not in chosen]
    wanted += [name for node in chosen.values() for name in graph.nodes[node].input if name in graph.producer]
    wanted += [cause for name in tuple(wanted) for cause in sorted(behind.get(name, ()))]
    outputs = list(dict.fromkeys(wanted))
    del settled.graph.output[:]
    settled.graph.output.extend(onnx.ValueInfoProto(name=name) for name in (*outputs, *chosen))
    reference = dict(zip((*outputs, *chosen), run_onnx(settled, inputs), strict=True))
    given = {name: reference[name] for name in chosen}
    del settled.graph.output[len(outputs) :]
    reader = with_given_choices(settled, given)
    compared = {name: graph.nodes[node] for name, node in chosen.items() if graph.nodes[node].op_type in COMPARISONS}
    reader.graph.output.extend(onnx.ValueInfoProto(name=own_choice(name)) for name in compared)
    computed = run_form(build(reader), {**inputs, **given})
    pairs = {name: (reference[name], value) for name, value in zip(outputs, computed, strict=False)}
    errors = {name: relative_error(*pair) for name, pair in pairs.items()}
    for (name, node), own in zip(compared.items(), computed[len(outputs) :], strict=True):
        if not compares_alike(graph, node, pairs, given[name], own):
            errors[own_choice(name)] = float("inf")

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(outputs, run_onnx(reader, inputs), strict=False))

    found = judged(errors, measured_rounding(run, {**inputs, **given}, behind), tolerance)
    return found, tuple(node_label(graph.nodes[node]) for node in chosen.values())


def run_onnx(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of ONNX Runtime on the CPU, without graph optimisations that change the arithmetic."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = {i.name: i.type for i in session.get_inputs()}
    feed = {
        name: value.astype(np.float32) if wanted.get(name) == "tensor(float)" else value
        for name, value in inputs.items()
    }
    outputs: list[np.ndarray] = session.run(None, feed)
    return outputs


def run_form(form: TorchForm, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of the torch form in evaluation mode, on the device where it is."""
    device = next((t.device for t in form.module.state_dict().values()), torch.device("cpu"))
    tensors = []
    for value in given_inputs(form.model):
        dtype = TORCH_DTYPES.get(value.type.tensor_type.elem_type)
        tensors.append(torch.as_tensor(np.ascontiguousarray(inputs[value.name])).to(device, dtype))
    was_training = form.module.training
    form.module.eval()
    what = "The model runs in ONNX Runtime and fails in torch"
    try:
        with (
            torch.no_grad(),
            as_engine_error("torch_form_failed", what, "Prune it without finetuning, and report the model."),
        ):
            return [output.cpu().numpy() for output in form.module(*tensors)]
    finally:
        form.module.train(was_training)


def relative_error(reference: np.ndarray, computed: np.ndarray) -> float:
    """max|a - b| / max|a|; infinite where shapes differ or one side is not finite where the other is."""
    if reference.shape != computed.shape:
        return float("inf")
    if reference.size == 0:
        return 0.0
    a, b = reference.astype(np.float64), computed.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    difference = np.where(same, 0.0, np.abs(a - b))
    largest = float(np.abs(a, where=np.isfinite(a), out=np.zeros_like(a)).max())
    error = float(difference.max()) / max(largest, float(np.finfo(np.float32).tiny))
    return float("inf") if np.isnan(error) else error
