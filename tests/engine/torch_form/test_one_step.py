"""One step of finetuning lowers the loss of a pruned network, for twenty families of networks."""

import copy
import warnings

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision

from tests.engine.torch_form.graphs import exported, floats, randomised
from worker.engine.graph import analyze
from worker.engine.surgery import Plan, prune
from worker.engine.torch_form import build

QUICK = ("resnet18", "mobilenet_v3_small", "timm/lcnet_050")
SLOW = (
    *("alexnet", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "mnasnet0_5", "regnet_y_400mf"),
    *("resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_1", "vgg11_bn", "convnext_tiny", "swin_t", "vit_b_32"),
    *("timm/ghostnet_100", "timm/res2net50_26w_4s", "timm/resnest14d", "timm/hrnet_w18_small", "timm/skresnet18"),
    *("timm/cspresnet50", "timm/dla34", "timm/repvgg_a0", "timm/fbnetc_100", "timm/mixer_s32_224"),
)
SIZES = {
    "alexnet": 224,
    "vgg11_bn": 224,
    "inception_v3": 128,
    "vit_b_32": 224,
    "timm/mixer_s32_224": 224,
    "timm/hrnet_w18_small": 128,
}
CLASSES = 5


def network(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if name.startswith("timm/"):
        return timm.create_model(name.removeprefix("timm/"), num_classes=CLASSES, exportable=True)
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, weights=None, num_classes=CLASSES, **options)


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_one_step_lowers_the_loss_of_the_pruned_network(name: str):
    """Batch statistics and Dropout as in training; the loss of the same batch, with the same units dropped, falls."""
    size = SIZES.get(name, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = exported(randomised(network(name)).eval(), torch.zeros(2, 3, size, size))
    analysis = analyze(model, allow_inexact=True)
    plan = Plan({g.id: torch.rand(len(g)).argsort().argsort().numpy() < (3 * len(g) + 3) // 4 for g in analysis.groups})
    pruned = prune(analysis, plan)
    assert analysis.costs.params(plan.counts(analysis)) < analysis.params

    module = build(pruned).module.train()
    x, labels = torch.from_numpy(floats(8, 3, size, size)), torch.arange(8) % CLASSES

    def loss() -> torch.Tensor:
        torch.manual_seed(0)  # the same units are dropped every time
        return F.cross_entropy(module(x)[0], labels)

    before = loss()
    before.backward()
    gradients = [parameter.grad for parameter in module.parameters()]
    assert gradients
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    slope = float(sum(gradient.square().sum() for gradient in gradients))
    weights = copy.deepcopy(module.state_dict())
    after = []
    for share in (0.05, 0.01, 0.002):  # how much the loss would fall if it were straight
        module.load_state_dict(weights)
        torch.optim.SGD(module.parameters(), lr=share * before.item() / slope).step()
        after.append(float(loss()))
    assert min(after) < before.item() - 0.0005
