"""Networks without norms, as exporters leave them: what is held, by how much, and that they learn."""

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tests.engine.graph.graph_builder import GraphBuilder
from tests.worker.networks import coloured_squares, residual_network
from worker.engine.data import InputSpec, open_dataset
from worker.engine.recovery import Checkpoints, FinetuneOptions, Interrupted, finetune
from worker.engine.recovery.gradient_clipping import GradientClipping, unnormalised_weights
from worker.engine.torch_form import build

OPTIONS = FinetuneOptions(epochs=4, learning_rate=0.05, batch_size=32, device="cpu")
WILD = OPTIONS.model_copy(update={"epochs": 3, "gradient_clipping": 0.0})


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    path = tmp_path / "squares.npz"
    path.write_bytes(coloured_squares(size=8))
    return path


def without_norms() -> onnx.ModelProto:
    """Activations and gradients grow with every block of it."""
    return residual_network(blocks=10, width=16, size=8)


def test_every_layer_without_a_norm_is_held_but_the_last():
    g = GraphBuilder(17)
    x = g.input((1, 3, 8, 8))
    normed = g.node("Relu", g.batch_norm(g.conv(x, 3, 8), 8))
    plain = g.node("Relu", g.conv(normed, 8, 8))
    model = g.model(g.conv(plain, 8, 4))
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert unnormalised_weights(model) == dict.fromkeys(convolutions[1].input[1:], 0)


def test_a_norm_may_follow_a_bias_a_residual_sum_or_a_change_of_shape():
    g = GraphBuilder(17)
    x = g.node("Relu", g.conv(g.input((1, 8, 8, 8)), 8, 8))
    summed = g.node("Add", x, g.conv(x, 8, 8))
    grouped = g.reshape(g.conv(g.node("Relu", g.batch_norm(summed, 8)), 8, 8), 1, 2, -1)
    normed = g.node("InstanceNormalization", grouped, *(g.constant(np.ones(2, np.float32)) for _ in range(2)))
    model = g.model(g.conv(g.reshape(normed, 1, 8, 8, 8), 8, 4))
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    assert unnormalised_weights(model) == dict.fromkeys(first.input[1:], 0)  # its Relu is what the norm does not undo


@pytest.mark.parametrize("at_the_end", [True, False])
def test_what_is_added_to_a_residual_stream_is_held_where_no_norm_stands_at_its_end(at_the_end: bool):
    """As in a transformer: each block reads the stream through a norm, and what it adds goes past that of the next."""
    g = GraphBuilder(17)
    stream = g.conv(g.input((1, 3, 8, 8)), 3, 8)
    for _ in range(2):
        stream = g.node("Add", stream, g.conv(g.node("Relu", g.batch_norm(stream, 8)), 8, 8))
    end = g.batch_norm(stream, 8) if at_the_end else stream
    model = g.model(g.conv(g.node("GlobalAveragePool", end), 8, 4))
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    adding = {name: 0 for node in convolutions[:-1] for name in node.input[1:]}
    assert unnormalised_weights(model) == ({} if at_the_end else adding)


def test_a_weight_on_the_left_of_a_product_has_its_filters_in_rows():
    g = GraphBuilder(17)
    left, other, right = g.constant(g.normal(6, 3)), g.constant(g.normal(3, 6)), g.constant(g.normal(8, 8))
    x = g.node("Relu", g.node("MatMul", left, g.input((1, 3, 8))))
    x = g.node("Relu", g.node("Gemm", other, g.node("Squeeze", x, g.ints(0)), transA=1))
    x = g.node("Relu", g.node("MatMul", x, right))
    assert unnormalised_weights(g.model(g.matmul(x, 8, 4))) == {left: -2, other: 1, right: -1}


def several_layers() -> onnx.ModelProto:
    """Whose filters lie along different axes of their weights."""
    g = GraphBuilder(17, seed=0)
    x = g.node("Relu", g.conv(g.input((1, 3, 8, 8)), 3, 12))
    x = g.node("Relu", g.node("ConvTranspose", x, g.weight(12, 10, 3, 3, name="transposed")))
    x = g.node("Flatten", g.node("GlobalAveragePool", x))
    x = g.node("Relu", g.node("MatMul", x, g.weight(10, 9, name="product")))
    x = g.node("Relu", g.node("MatMul", x, g.transpose(g.weight(8, 9, name="turned"), 1, 0)))
    x = g.node("Relu", g.node("Gemm", x, g.weight(7, 8, name="gemm"), transB=1))
    return g.model(g.node("Gemm", x, g.weight(7, 4)))


def test_gradients_of_filters_have_at_most_a_share_of_the_filters_norm():
    form = build(several_layers())
    clipping = GradientClipping(form, 0.02)
    axes = unnormalised_weights(form.model)
    assert {"transposed": 1, "product": -1, "turned": 0, "gemm": 0}.items() <= axes.items()
    held = [(form.module.get_parameter(form.parameters[name]), axis) for name, axis in axes.items()]
    for weight, axis in held:
        by_filter = weight.detach().movedim(axis, 0)
        scale = torch.logspace(-6, 3, len(by_filter)).reshape(-1, *(1 for _ in by_filter.shape[1:]))
        weight.grad = (torch.ones_like(by_filter) * scale).movedim(0, axis)
    before = [weight.grad.clone() for weight, _ in held]
    clipping.apply()
    for (weight, axis), given in zip(held, before, strict=True):
        if weight.dim() > 1:
            each = (t.movedim(axis, 0).flatten(1).norm(dim=1) for t in (weight.detach(), weight.grad, given))
        else:
            each = (t.norm()[None] for t in (weight.detach(), weight.grad, given))
        norms, grads, were = each
        assert torch.allclose(grads, were.minimum(0.02 * norms.clamp_min(1e-3)), rtol=1e-4)
        if weight.dim() > 1:
            assert (grads < were).any()
            assert (grads == were).any()


def test_a_network_without_norms_learns_at_a_rate_at_which_it_diverges_without_clipping(squares: Path):
    model = without_norms()
    dataset = open_dataset(squares, InputSpec.of(model))
    held, free = (
        finetune(build(model), dataset, OPTIONS.model_copy(update={"gradient_clipping": share}))
        for share in (0.02, 0.0)
    )
    assert held.retreats == 0
    assert held.epochs[held.best_epoch].validation_top1 >= 0.5 > held.epochs[0].validation_top1
    assert free.retreats > 0


def test_a_training_that_diverged_goes_on_at_a_tenth_of_the_rate_from_its_best_weights(squares: Path):
    model = without_norms()
    dataset = open_dataset(squares, InputSpec.of(model))
    found = finetune(build(model), dataset, WILD)
    assert 0 < found.retreats <= 3
    assert [row.epoch for row in found.epochs] == list(range(WILD.epochs + 1))
    assert found.epochs[1].learning_rate <= 0.11 * WILD.learning_rate
    assert all(math.isfinite(row.validation_loss) for row in found.epochs)


def test_a_training_that_diverged_resumes_bit_by_bit(squares: Path, tmp_path: Path):
    model = without_norms()
    dataset = open_dataset(squares, InputSpec.of(model))
    whole = build(model)
    expected = finetune(whole, dataset, WILD)
    cuts = 0
    while True:
        form, left = build(model), iter(range(5))
        checkpoints = Checkpoints(tmp_path / "training.safetensors", 0, lambda: next(left, None) is None)  # noqa: B023
        try:
            found = finetune(form, dataset, WILD, checkpoints=checkpoints)
            break
        except Interrupted:
            cuts += 1
    assert cuts > 3
    assert found.retreats == expected.retreats > 0
    assert [row.validation_loss for row in found.epochs] == [row.validation_loss for row in expected.epochs]
    for name, value in whole.module.state_dict().items():
        assert torch.equal(form.module.state_dict()[name], value)
