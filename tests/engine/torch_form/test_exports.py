"""Whole networks by both of torch's exporters: parity, and one step of training."""

import io
import warnings

import onnx
import pytest
import torch
import torch.nn.functional as F
import torchvision

from tests.engine.torch_form.graphs import floats, randomised
from worker.engine.torch_form import build, parity

QUICK = ("mobilenet_v3_small", "shufflenet_v2_x0_5")
SLOW = (
    *("alexnet", "densenet121", "efficientnet_b0", "mnasnet0_5", "mobilenet_v2", "regnet_y_400mf", "resnet18"),
    *("resnext50_32x4d", "squeezenet1_1", "vgg11_bn", "convnext_tiny", "swin_t", "vit_b_32", "maxvit_t"),
    *("googlenet", "inception_v3"),
)
NAMES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
SIZES = {"inception_v3": 299, "vit_b_32": 224, "maxvit_t": 224, "alexnet": 224, "vgg11_bn": 224}
TAKES_INIT = {"googlenet", "inception_v3"}


def exported(name, dynamo):
    torch.manual_seed(0)
    options = {"init_weights": False} if name in TAKES_INIT else {}
    network = randomised(torchvision.models.get_model(name, weights=None, num_classes=5, **options)).eval()
    size = SIZES.get(name, 64)
    example, file = torch.zeros(2, 3, size, size), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            shapes = ({0: torch.export.Dim("batch")},)
            program = torch.onnx.export(network, (example,), dynamo=True, dynamic_shapes=shapes, verbose=False)
            return program.model_proto, size
        axes = {"x": {0: "batch"}}
        torch.onnx.export(network, example, file, dynamo=False, input_names=["x"], dynamic_axes=axes)
    return onnx.load_from_string(file.getvalue()), size


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dynamo", [pytest.param(True, marks=pytest.mark.slow), False], ids=["dynamo", "tracing"])
def test_parity_and_a_step(name, dynamo):
    model, size = exported(name, dynamo)
    form = build(model)
    for batch in (1, 3):
        assert parity(model, form, {model.graph.input[0].name: floats(batch, 3, size, size)}) <= 1e-4
    x, labels = torch.from_numpy(floats(4, 3, size, size)), torch.arange(4)
    torch.manual_seed(0)
    loss = F.cross_entropy(form.module.train()(x)[0], labels)
    loss.backward()
    gradients = [p.grad for p in form.module.parameters() if p.grad is not None]
    assert len(gradients) == len(list(form.module.parameters()))
    # As long a step as would take a thousandth of the loss if it were linear: random networks are steep.
    steepness = sum(gradient.double().square().sum().item() for gradient in gradients)
    assert 0 < steepness < float("inf")
    torch.optim.SGD(form.module.parameters(), lr=1e-3 * loss.item() / steepness).step()
    torch.manual_seed(0)
    assert F.cross_entropy(form.module(x)[0], labels) < loss
