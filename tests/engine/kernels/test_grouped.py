"""The grouped layout: what it computes, what it loses, and what it leaves in the graph."""

from collections import Counter

import numpy as np
import onnx
import pytest

from tests.engine.graph.graph_builder import GraphBuilder
from worker.engine.graph import analyze, sample_inputs
from worker.engine.kernels import group_kernels
from worker.engine.kernels.blocks import partition
from worker.engine.kernels.proof import prove_layout
from worker.engine.torch_form import build, parity


def _chain(g: GraphBuilder, x: str) -> str:
    """Everything the order can be folded into: norms, activations, pooling, depthwise convolution, Gemm."""
    x = g.node("Relu", g.batch_norm(g.conv(x, 3, 32), 32))
    x = g.node("PRelu", g.conv(x, 32, 32), g.weight(32, 1, 1))
    x = g.conv(x, 32, 32, group=32)
    x = g.node("Add", g.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), g.weight(1, 32, 1, 1))
    x = g.conv(x, 32, 16, kernel=1)
    return g.gemm(g.node("Flatten", x), 16 * 16, 10)


def _residual(g: GraphBuilder, x: str) -> str:
    """Two convolutions make the same channels: they share their blocks."""
    x = g.node("Relu", g.conv(x, 3, 32))
    for _ in range(2):
        y = g.node("Relu", g.conv(x, 32, 48))
        x = g.node("Relu", g.node("Add", g.conv(y, 48, 32), x))
    return g.gemm(g.node("Flatten", g.node("GlobalAveragePool", x)), 32, 10)


def _branches(g: GraphBuilder, x: str) -> str:
    """A Concat of two groups, and a Slice that keeps its channels in their order."""
    x = g.node("Relu", g.conv(x, 3, 32))
    both = g.node("Concat", g.conv(x, 32, 16), g.conv(x, 32, 32), axis=1)
    part = g.node("Slice", g.conv(both, 48, 32), g.ints(4), g.ints(20), g.ints(1))
    return g.conv(part, 16, 16)


def _output(g: GraphBuilder, x: str) -> str:
    """The model's output keeps its order."""
    return g.conv(g.node("Relu", g.conv(x, 3, 16)), 16, 16)


NETWORKS = {"chain": _chain, "residual": _residual, "branches": _branches, "output": _output}


def _model(name: str, constants_as: str = "initializer") -> onnx.ModelProto:
    g = GraphBuilder(constants_as=constants_as)
    return g.model(NETWORKS[name](g, g.input(("batch", 3, 8, 8))))


@pytest.mark.parametrize("sparsity", [0.5, 0.75])
@pytest.mark.parametrize("name", NETWORKS)
def test_it_computes_what_the_masked_network_does(name: str, sparsity: float) -> None:
    model = _model(name)
    for fold in (True, False):
        grouped = group_kernels(model, sparsity, fold=fold)
        proof = prove_layout(model, grouped)
        assert grouped.layers
        assert proof.passed, proof
        assert proof.compared_tensors > len(grouped.layers)
        for layer in grouped.layers:
            assert (layer.mask.sum(axis=1) == layer.inputs_per_block).all()


@pytest.mark.parametrize(("name", "gathers_behind"), [("chain", 0), ("residual", 0), ("branches", 2), ("output", 1)])
def test_the_order_is_folded_into_whoever_reads_it(name: str, gathers_behind: int) -> None:
    grouped = group_kernels(_model(name), 0.5)
    ops = Counter(node.op_type for node in grouped.model.graph.node)
    assert sum(layer.restores_order for layer in grouped.layers) == gathers_behind
    assert ops["Gather"] == len(grouped.layers) + gathers_behind
    assert ops["Concat"] == (name == "branches")


def test_macs_and_parameters_fall_with_the_kernels() -> None:
    model = _model("residual")
    grouped = group_kernels(model, 0.5)
    before, after = analyze(model), analyze(grouped.model)
    saved = {layer.target.name: 1 - layer.mask.mean() for layer in grouped.layers}
    for old, new in zip(before.layers, after.layers, strict=True):
        assert new.macs == round(old.macs * (1 - saved.get(old.name, 0.0)))
    assert set(saved.values()) == {0.5}


def test_the_proof_sees_a_wrong_layout() -> None:
    model = _model("chain")
    grouped = group_kernels(model, 0.5)
    reads = next(t for t in grouped.model.graph.initializer if t.name.endswith("/reads"))
    indices = onnx.numpy_helper.to_array(reads).copy()
    indices[[0, -1]] = indices[[-1, 0]]
    reads.CopyFrom(onnx.numpy_helper.from_array(indices, reads.name))
    assert not prove_layout(model, grouped).passed


def test_its_torch_form_trains() -> None:
    grouped = group_kernels(_model("residual"), 0.5)
    form = build(grouped.model)
    assert parity(grouped.model, form, sample_inputs(grouped.model)) < 1e-5
    assert {layer.target.weight for layer in grouped.layers} <= set(form.parameters)


def test_weights_in_constant_nodes_are_grouped_like_others() -> None:
    """Paddle's converter writes them so."""
    found, expected = (group_kernels(_model("chain", constants_as=kind), 0.5) for kind in ("node", "initializer"))
    assert len(found.layers) == len(expected.layers) > 0
    assert not {node.op_type for node in found.model.graph.node} & {"Constant"}


def test_hidden_blocks_are_found() -> None:
    """Filters that read four disjoint sets of channels, shuffled: nothing of importance is lost."""
    rng = np.random.default_rng(1)
    blocks, channels = rng.permutation(np.arange(32) % 4), rng.permutation(np.arange(64) % 4)
    importance = np.where(blocks[:, None] == channels[None, :], rng.uniform(0.5, 1.5, (32, 64)), 0.01)
    found = partition([importance], [16], 4)
    assert all(len(set(blocks[found.block_of == block])) == 1 for block in range(4))
    assert found.kept > 0.95


def test_clustering_keeps_more_than_blocks_by_position() -> None:
    rng = np.random.default_rng(2)
    importance = np.exp(rng.normal(size=(64, 6)) @ rng.normal(size=(6, 64)))
    found = partition([importance], [32], 4)
    by_position = sum(np.sort(part.sum(axis=0))[-32:].sum() for part in np.split(importance, 4)) / importance.sum()
    assert found.kept > by_position + 0.02


def test_declared_shapes_of_weights_follow() -> None:
    """torch's exporter declares its weights among the inner values."""
    model = _model("chain")
    for t in model.graph.initializer:
        model.graph.value_info.append(onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims))
    grouped = group_kernels(model, 0.5)
    assert grouped.layers
    onnx.checker.check_model(grouped.model, full_check=True)
    assert parity(grouped.model, build(grouped.model), sample_inputs(grouped.model)) < 1e-4
