"""The trial that chooses float32 or bfloat16: it takes what is clearly faster, and leaves the network as it was."""

from pathlib import Path

import pytest
import torch
from torch import nn

from worker.engine.recovery.arithmetic import BFLOAT16, CANDIDATES, FLOAT32, Arithmetic, fastest, suited

CPU = torch.device("cpu")
LAST = Arithmetic("float32", channels_last=True)


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({FLOAT32: 0.09, LAST: 0.06, BFLOAT16: 0.02}, BFLOAT16),
        ({FLOAT32: 0.09, LAST: 0.02, BFLOAT16: 0.06}, LAST),
        ({FLOAT32: 0.06, LAST: 0.055, BFLOAT16: 0.12}, FLOAT32),
        ({FLOAT32: 0.06, LAST: None, BFLOAT16: None}, FLOAT32),
        ({FLOAT32: 0.06, LAST: None, BFLOAT16: 0.01}, BFLOAT16),
    ],
)
def test_what_is_clearly_faster_and_works_is_chosen(seconds, best):
    now = 0.0

    def step(arithmetic: Arithmetic) -> None:
        nonlocal now
        if seconds[arithmetic] is None:
            raise RuntimeError("no kernel for it")
        now += seconds[arithmetic]

    assert fastest(small(), step, CPU, clock=lambda: now) == best


def test_bfloat16_is_tried_on_processors_with_instructions_for_it():
    flags = set(Path("/proc/cpuinfo").read_text().split())
    if "avx2" not in flags:
        pytest.skip("what instructions there are is told of x86 processors")
    has_them = bool({"avx512bw", "avx_vnni", "avx_ne_convert"} & flags)
    assert suited(torch.device("cuda")) == CANDIDATES
    assert (BFLOAT16 in suited(CPU)) <= has_them
    assert ("avx512_bf16" in flags) <= (BFLOAT16 in suited(CPU))
    assert {FLOAT32, LAST} <= set(suited(CPU))


def test_a_trial_leaves_no_trace():
    network, images = small().train(), torch.randn(4, 3, 8, 8)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    tried = []

    def step(arithmetic: Arithmetic) -> None:
        tried.append(arithmetic)
        batch = arithmetic.images(images)
        assert batch.is_contiguous(memory_format=torch.channels_last) == arithmetic.channels_last
        with arithmetic.context(CPU):
            out = network(batch)
        assert out.dtype == (torch.bfloat16 if arithmetic == BFLOAT16 else torch.float32)
        out.float().square().mean().backward()

    fastest(network, step, CPU)
    assert set(tried) == set(CANDIDATES)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None and p.is_contiguous() for p in network.parameters())


@pytest.mark.parametrize("arithmetic", CANDIDATES)
def test_tensors_without_such_a_format_stay_as_they_are(arithmetic):
    """Anchors of a detector, (1, anchors, 1, 1, 2), and kernels of volumes."""
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv3d(3, 4, 3))
    network.register_parameter("anchors", nn.Parameter(torch.ones(1, 3, 1, 1, 2)))
    arithmetic.prepare(network)
    wanted = torch.channels_last if arithmetic.channels_last else torch.contiguous_format
    assert network[0].weight.is_contiguous(memory_format=wanted)
    assert network[1].weight.is_contiguous()
    assert network.anchors.is_contiguous()
