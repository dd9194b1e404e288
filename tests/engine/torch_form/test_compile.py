"""torch.compile takes the torch form of whole networks in one graph, and the compiled form computes the same."""

import shutil

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from tests.engine.torch_form.graphs import exported, floats, randomised
from worker.engine.torch_form import build

BACKENDS = ["aot_eager"]
INDUCTOR = pytest.param(
    "inductor", marks=pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
)


def loss_and_gradients(module: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    loss = F.cross_entropy(module(x)[0], torch.arange(len(x)))
    return loss.detach(), list(torch.autograd.grad(loss, list(module.parameters())))


@pytest.mark.slow
@pytest.mark.timeout(1800)  # inductor compiles hundreds of C++ kernels
@pytest.mark.parametrize("backend", [*BACKENDS, INDUCTOR])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_a_compiled_form_trains_as_the_form_does(name: str, backend: str):
    torch.manual_seed(0)
    network = randomised(torchvision.models.get_model(name, weights=None, num_classes=5)).eval()
    model, x = exported(network, torch.zeros(2, 3, 64, 64)), torch.from_numpy(floats(4, 3, 64, 64))
    torch._dynamo.reset()
    for training in (False, True):
        plain, form = (build(model).module.train(training) for _ in range(2))
        expected = loss_and_gradients(plain, x)
        found = loss_and_gradients(torch.compile(form, backend=backend, fullgraph=True), x)
        torch.testing.assert_close(found[0], expected[0], rtol=1e-3, atol=1e-4)
        for got, want in zip(found[1], expected[1], strict=True):
            torch.testing.assert_close(got, want, rtol=2e-2, atol=1e-3 * float(want.abs().max()) + 1e-5)
