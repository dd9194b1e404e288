"""In training mode the torch form learns exactly as the module that was exported."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnx import helper
from torch import nn

from tests.engine.graph.cuts import assert_correct, cut
from tests.engine.graph.graph_builder import GraphBuilder
from tests.engine.torch_form.graphs import exported, floats, model_of, randomised
from worker.engine.graph import sample_inputs
from worker.engine.torch_form import build, parity

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


class Residual(nn.Module):
    """Grouped convolution, norms, squeeze and excitation, a shortcut, and a linear head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8, momentum=0.3), nn.Hardswish())
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm = nn.BatchNorm2d(8)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.group_norm = nn.GroupNorm(2, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        y = F.relu(self.norm(self.depthwise(x)))
        y = y * F.hardsigmoid(self.excite(F.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        return self.head(self.group_norm(F.max_pool2d(x + y, 2)).mean((2, 3)))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return randomised(Residual())


def test_gradients_and_running_averages_equal_the_modules(network):
    form = build(exported(network.eval(), torch.zeros(2, 3, 16, 16)))
    original = copy.deepcopy(network).train()
    x, labels = torch.from_numpy(floats(6, 3, 16, 16)), torch.tensor([0, 1, 2, 3, 4, 0])
    F.cross_entropy(original(x), labels).backward()
    F.cross_entropy(form.module.train()(x)[0], labels).backward()
    gradients = {name: p.grad for name, p in original.named_parameters()}
    assert form.parameters.keys() == gradients.keys()
    for name, path in form.parameters.items():
        torch.testing.assert_close(form.module.get_parameter(path).grad, gradients[name], rtol=1e-4, atol=1e-6)
    buffers = dict(original.named_buffers())
    for average in form.averages:
        torch.testing.assert_close(form.module.get_buffer(average.path), buffers[average.name])
    assert {a.name for a in form.averages} == {n for n in buffers if not n.endswith("num_batches_tracked")}


def test_what_was_learned_is_written_back_under_the_same_names(network):
    model = exported(network.eval(), torch.zeros(2, 3, 16, 16))
    form = build(model)
    optimizer = torch.optim.SGD(form.module.parameters(), lr=0.1)
    x = torch.from_numpy(floats(6, 3, 16, 16))
    form.module.train()(x)[0].square().mean().backward()
    optimizer.step()
    written = form.write_back()
    assert [t.name for t in written.graph.initializer] == [t.name for t in model.graph.initializer]
    assert [n.op_type for n in written.graph.node] == [n.op_type for n in model.graph.node]
    inputs = {"x": floats(3, 3, 16, 16, seed=1)}
    assert parity(written, form, inputs) <= 1e-5
    assert parity(model, form, inputs) > 1e-3


def test_dropout_drops_in_training_only():
    model = exported(nn.Sequential(nn.Conv2d(1, 1, 1), nn.Dropout(0.5)).train(), torch.zeros(2, 1, 8, 8), training=True)
    form = build(model)
    x = torch.from_numpy(floats(4, 1, 8, 8))
    zeros = (form.module.train()(x)[0] == 0).float().mean().item()
    assert 0.3 < zeros < 0.7
    assert not (form.module.eval()(x)[0] == 0).any()


def test_momentum_of_one_is_taken_as_the_default():
    """Some exporters write 1.0, with which the averages would never follow the weights."""
    form = build(batch_norm_model(momentum=1.0))
    form.module.train()(torch.from_numpy(10 + floats(8, 4, 5, 5)))
    mean = form.module.get_buffer(form.averages[0].path)
    assert torch.all((mean > 0.5) & (mean < 2.5))


def test_batch_statistics_by_attribute_hold_in_evaluation_too():
    """Weight standardisation is exported as a BatchNormalization in training mode over the filters."""
    model = batch_norm_model(training_mode=1)
    model.graph.node[0].output.extend(["new_mean", "new_variance"])
    form = build(model)
    assert form.averages == ()
    assert parity(model, form, {"x": floats(8, 4, 5, 5)}) <= 1e-5


@pytest.mark.parametrize("opset", [7, 9, 13])
@pytest.mark.parametrize("named", [1, 3, 5])
def test_batch_statistics_by_further_outputs_before_opset_14(opset: int, named: int):
    b = GraphBuilder(opset)
    x = b.conv(b.input((2, 3, 6, 6)), 3, 8)
    vectors = [b.weight(8, low=low) for low in (0.5, -0.5, -0.5, 0.5)]
    outputs = b.node("BatchNormalization", x, *vectors, outputs=5 if named > 1 else 1, momentum=0.7)
    first, *others = outputs if named > 1 else (outputs,)
    if named == 3:
        b.nodes[-1].output[3:] = ["", ""]
    last = b.conv(first, 8, 4)
    for model in (b.model(last), b.model(last, *others[: named - 1])):
        form = build(model)
        assert len(form.averages) == (2 if named == 1 else 0)
        assert parity(model, form, sample_inputs(model)) <= 1e-5
        assert_correct(cut(model))


def test_merged_statistics_part_when_they_are_learned():
    """Exporters merge equal tensors: here one tensor is scale, variance, and another norm's variance."""
    ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
    nodes = [
        helper.make_node("BatchNormalization", ["x", "one", "zero", "zero", "one"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Identity", ["one"], ["variance"]),
        helper.make_node("BatchNormalization", ["r", "one", "zero", "zero", "variance"], ["y"]),
    ]
    model = model_of(nodes, {"x": (None, 4, 5, 5)}, ["y"], {"one": ones, "zero": zeros})
    form = build(model)
    form.module.train()(torch.from_numpy(3 + floats(8, 4, 5, 5)))
    written = form.write_back()
    assert parity(written, form, {"x": floats(2, 4, 5, 5)}) <= 1e-5
    means = [form.module.get_buffer(a.path) for a in form.averages if a.index == 3]
    assert not torch.allclose(*means)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_step_lowers_the_loss(network, dtype):
    form = build(exported(network.eval(), torch.zeros(2, 3, 16, 16)))
    optimizer = torch.optim.SGD(form.module.parameters(), lr=0.05)
    x, labels = torch.from_numpy(floats(16, 3, 16, 16)), torch.arange(16) % 5
    losses = []
    for _ in range(5):
        with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
            loss = F.cross_entropy(form.module.train()(x)[0].float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def batch_norm_model(**attributes):
    stored = {n: floats(4, seed=s) for s, n in enumerate(("scale", "bias"))}
    stored |= {"mean": np.zeros(4, np.float32), "variance": np.ones(4, np.float32)}
    node = helper.make_node("BatchNormalization", ["x", "scale", "bias", "mean", "variance"], ["y"], **attributes)
    return model_of([node], {"x": (None, 4, 5, 5)}, ["y"], stored)
