"""BN re-estimation and least-squares reconstruction: exact where they can be, better everywhere else."""

import io

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.engine.graph.graph_builder import GraphBuilder
from worker.engine.allocation.registry import plan_of
from worker.engine.criteria import score
from worker.engine.data import Augmentation, DataOptions, InputSpec, open_dataset
from worker.engine.errors import EngineError
from worker.engine.graph import analyze
from worker.engine.recovery import (
    TOO_LARGE,
    Rerun,
    calibration_batches,
    reconstruct,
    reestimate_norms,
    single_images,
)
from worker.engine.recovery.least_squares import NormalEquations, fit
from worker.engine.surgery import Plan, prune
from worker.engine.torch_form import build

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def exported(module, size=10):
    file = io.BytesIO()
    torch.onnx.export(
        module.eval(),
        torch.zeros(2, 3, size, size),
        file,
        dynamo=False,
        do_constant_folding=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
    )
    return onnx.load_from_string(file.getvalue())


def images(batches=6, count=32, size=10):
    """Smooth images: their pixels have something in common, as those of real ones do."""
    noise = torch.randn(batches, count, 3, size, size)
    return [F.avg_pool2d(batch, 3, 1, 1) + 0.2 * batch for batch in noise]


def randomised(module):
    """Norms with statistics that are not their initial ones."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, 0, 0.3)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.2)
    return module


class Mixed(nn.Module):
    """Every kind of layer that can be refitted: 3x3, strided, 1x1 with bias, grouped, depthwise, dilated; residual
    Adds of a block and of a projection; Gemm and MatMul."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.inner = nn.Sequential(
            nn.Conv2d(16, 32, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 1, 1, groups=32, bias=False), nn.BatchNorm2d(32),
            nn.ReLU(), nn.Conv2d(32, 32, 3, 1, 2, dilation=2, groups=2), nn.ReLU(),
            nn.Conv2d(32, 16, 1, bias=False), nn.BatchNorm2d(16),
        )  # fmt: skip
        self.down = nn.Sequential(nn.Conv2d(16, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24))
        self.project = nn.Conv2d(16, 24, 1, 2, bias=False)
        self.hidden = nn.Linear(24, 32)
        self.matrix = nn.Parameter(torch.randn(32, 5) / 5)

    def forward(self, x):
        x = self.stem(x)
        x = F.relu(x + self.inner(x))
        x = F.relu(self.down(x) + self.project(x)).mean((2, 3))
        return F.relu(self.hidden(x)) @ self.matrix


def outputs(form, batches):
    with torch.no_grad():
        return torch.cat([form.module(batch)[0] for batch in batches])


def test_reestimated_statistics_are_those_of_the_images():
    network = randomised(Mixed())
    form, batches = build(exported(network)), images()
    assert reestimate_norms(form, batches) == 4
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = None
        for norm in [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]:
            norm.reset_running_stats()
            norm.train()
            network(torch.cat(batches))
            norm.eval()
        expected = network(torch.cat(batches))
    written = build(form.write_back())
    # Torch keeps the unbiased variance: a factor of 1920 / 1919 and more here.
    torch.testing.assert_close(outputs(written, batches), expected, rtol=2e-3, atol=2e-3)


def test_channels_that_copy_others_can_go_without_loss():
    """Half of the channels repeat the other half: the fit finds the network with their weights added up."""
    network = randomised(
        nn.Sequential(
            nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(200, 4),
        )
    )  # fmt: skip
    first, norm = network[0], network[1]
    with torch.no_grad():
        for values in (first.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var):
            values[8:] = values[:8]
    model, batches = exported(network), images()
    analysis = analyze(model)
    (group,) = [g for g in analysis.groups if len(g) == 16]
    plan = Plan({group.id: np.arange(16) < 8})
    form = build(prune(analysis, plan))
    original = build(model)
    expected = outputs(original, batches)
    assert (outputs(form, batches) - expected).abs().max() > 0.01
    fits = reconstruct(analysis, plan, original, form, batches)
    assert fits[0].error_before > 0.01
    assert fits[0].error_after < 1e-4
    torch.testing.assert_close(outputs(build(form.write_back()), batches), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 2, "stride": 2},
        {"kernel_size": 4, "stride": 2, "padding": 1, "bias": False},
        {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1, "groups": 2},
        {"kernel_size": (3, 2), "stride": (1, 3), "padding": (1, 0), "dilation": (2, 1)},
        {"kernel_size": 1, "stride": 2},
        {"kernel_size": 2, "padding": 2, "groups": 2},  # narrower than its input: less than nothing is padded
    ],
)
def test_a_transposed_convolution_takes_over_what_copies_did(options):
    """Every second channel of the stem repeats the one before it, and goes."""
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU(), nn.ConvTranspose2d(16, 6, **options), randomised(nn.BatchNorm2d(6)),
        nn.Sigmoid(),
    )  # fmt: skip
    with torch.no_grad():
        for values in (network[0].weight, network[0].bias):
            values[1::2] = values[::2]
    model, batches = exported(network), images()
    analysis = analyze(model)
    (group,) = analysis.groups  # with two groups of inputs, a channel of each goes with one of the other
    plan = Plan({group.id: np.arange(len(group)) % 2 == 0})
    original, form = build(model), build(prune(analysis, plan))
    expected = outputs(original, batches)
    (fit,) = reconstruct(analysis, plan, original, form, batches)
    assert fit.error_before > 0.01
    assert fit.error_after < 1e-4
    torch.testing.assert_close(outputs(build(form.write_back()), batches), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("groups", [1, 2])
def test_the_bias_that_an_add_gives_a_transposed_convolution_is_fitted_with_it(groups):
    g = GraphBuilder(17)
    hidden = g.node("Relu", g.conv(g.input(("n", 3, 8, 8)), 3, 16))
    wide = g.node("ConvTranspose", hidden, g.weight(16, 6 // groups, 2, 2), strides=[2, 2], group=groups)
    model = g.model(g.node("Add", wide, g.weight(1, 6, 1, 1)))
    assert_no_mean_error_is_left(model, images(size=8), (0, 2, 3))  # few enough positions for all to be rows


def test_every_kind_of_layer_comes_closer_to_the_original():
    model, batches, fresh = exported(randomised(Mixed())), images(10), images(2)
    analysis = analyze(model)
    plan = plan_of(analysis, score(analysis, "l2"), analysis.full // 2)
    original = build(model)
    expected = outputs(original, fresh)

    def error(form):
        return float((outputs(form, fresh) - expected).square().mean() / expected.var())

    cut = build(prune(analysis, plan))
    renormed, refitted = build(prune(analysis, plan)), build(prune(analysis, plan))
    reestimate_norms(renormed, batches)
    fits = reconstruct(analysis, plan, original, refitted, batches)
    assert {fit.name.rsplit("/", 1)[-1].partition("_")[0] for fit in fits} == {"Conv", "Gemm", "MatMul"}
    assert len(fits) == 8  # all but the stem, whose inputs are whole
    assert all(fit.error_after < fit.error_before for fit in fits)
    written = build(refitted.write_back())
    assert error(written) < 0.5 * error(renormed)
    assert error(written) < 0.3 * error(cut)


class Context(nn.Module):
    """A block that adds what it makes of the pooled map to every position."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU())
        self.inner = nn.Sequential(nn.Conv2d(16, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 1))
        self.head = nn.Conv2d(16, 5, 1)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + self.inner(x.mean((2, 3), keepdim=True))).mean((2, 3))


class PooledTokens(nn.Module):
    """The same on (images, positions, channels)."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU())
        self.first, self.second = (nn.Parameter(torch.randn(16, 16) / 4) for _ in range(2))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        return self.head((x + F.relu(x.mean(1, keepdim=True) @ self.first) @ self.second).mean(1))


@pytest.mark.parametrize("network", [Context, PooledTokens])
def test_a_layer_that_an_add_repeats_is_fitted_to_its_own_output(network):
    model, batches = exported(network()), images()
    analysis = analyze(model)
    plan = plan_of(analysis, score(analysis, "l2"), analysis.full // 2)
    original, cut, form = build(model), build(prune(analysis, plan)), build(prune(analysis, plan))
    fits = reconstruct(analysis, plan, original, form, batches)
    assert all(fit.error_after < fit.error_before for fit in fits)
    expected = outputs(original, batches)
    before, after = ((outputs(each, batches) - expected).square().mean() for each in (cut, form))
    assert after < 0.5 * before


class Tokens(nn.Module):
    """Two linear layers over positions, added to what they read: exported, a MatMul and an Add of the bias each."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU())
        self.first, self.second, self.head = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 5)

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        return self.head(x + self.second(F.relu(self.first(x))))


def test_the_bias_that_an_add_gives_a_product_is_fitted_with_it():
    model, batches = exported(Tokens()), images()
    assert [node.op_type for node in model.graph.node].count("MatMul") == 3
    analysis = analyze(model)
    (hidden,) = [group for group in analysis.groups if len(group) == 32]
    plan = Plan({hidden.id: np.arange(32) < 16})
    original, form = build(model), build(prune(analysis, plan))
    fits = reconstruct(analysis, plan, original, form, batches)
    products = [node.name for node in model.graph.node if node.op_type == "MatMul"]
    assert [fit.name for fit in fits] == products[1:]  # the first one reads what it did
    # Least squares with a constant leave no mean error of the sum that the layer is fitted to.
    missed = outputs(form, batches) - outputs(original, batches)
    assert missed.mean((0, 1)).abs().max() < 0.01 * missed.abs().mean()


class BiasByAdd(nn.Module):
    """A convolution whose bias is an Add of its own, as CNTK and Paddle write it; with a norm behind it, perhaps."""

    def __init__(self, shape, reshaped, norm):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU())
        self.layer, self.bias = nn.Conv2d(16, 5, 3, bias=False), nn.Parameter(torch.randn(shape))
        self.reshaped, self.norm = reshaped, nn.BatchNorm2d(5) if norm else nn.Identity()

    def forward(self, x):
        bias = self.bias.reshape(1, -1, 1, 1) if self.reshaped else self.bias
        return self.norm(self.layer(self.stem(x)) + bias)


@pytest.mark.parametrize(
    ("shape", "reshaped", "norm"),
    [((5, 1, 1), False, False), ((1, 5, 1, 1), False, False), ((5,), True, False), ((5, 1, 1), False, True)],
)
def test_the_bias_that_an_add_gives_a_convolution_is_fitted_with_it(shape, reshaped, norm):
    model, batches = exported(randomised(BiasByAdd(shape, reshaped, norm))), images()
    assert [node.op_type for node in model.graph.node].count("Reshape") == int(reshaped)
    assert_no_mean_error_is_left(model, batches, (0, 2, 3))


@pytest.mark.parametrize("shape", [(5,), (1, 5)])
def test_the_bias_of_a_gemm_is_fitted_whether_or_not_it_is_stored_as_a_row(shape):
    g = GraphBuilder(17)
    pooled = g.node("GlobalAveragePool", g.node("Relu", g.conv(g.input(("n", 3, 10, 10)), 3, 16)))
    gemm = g.node("Gemm", g.node("Flatten", pooled), g.weight(16, 5), g.weight(*shape))
    assert_no_mean_error_is_left(g.model(gemm), images(), 0)


def assert_no_mean_error_is_left(model, batches, axes):
    """Of the one layer behind channels of which three eighths stay: least squares with a constant leave none."""
    analysis = analyze(model)
    (hidden,) = analysis.groups
    plan = Plan({hidden.id: np.arange(len(hidden)) < 3 * len(hidden) // 8})
    original, form = build(model), build(prune(analysis, plan))
    assert len(reconstruct(analysis, plan, original, form, batches)) == 1
    missed = outputs(form, batches) - outputs(original, batches)
    assert missed.mean(axes).abs().max() < 0.01 * missed.abs().mean()


def test_biases_that_are_zeros_computed_on_the_way_are_none():
    """torch.export without its optimiser: zeros like the input, as many as the weight has filters."""
    g = GraphBuilder(18)
    x = g.input(("n", 3, 10, 10))
    for inputs, channels in ((3, 16), (16, 12)):
        weight = g.weight(channels, inputs, 3, 3)
        zero = g.node("CastLike", g.constant(0.0), x)
        bias = g.node("Expand", zero, g.node("Shape", weight, start=0, end=1))
        x = g.node("Relu", g.batch_norm(g.node("Conv", x, weight, bias, pads=[1] * 4), channels))
    model = g.model(g.conv(x, 12, 4, kernel=1))
    analysis = analyze(model)
    plan = plan_of(analysis, score(analysis, "l2"), analysis.full // 2)
    fits = reconstruct(analysis, plan, build(model), build(prune(analysis, plan)), images())
    layers = [node.name for node in model.graph.node if node.op_type == "Conv"]
    assert [fit.name for fit in fits] == layers[1:]  # the first one reads the images


def test_a_model_that_lost_nothing_stays_as_it_is():
    model, batches = exported(randomised(Mixed())), images()
    analysis = analyze(model)
    form, original = build(model), build(model)
    assert reconstruct(analysis, Plan({}), original, form, batches) == ()


def test_the_ridge_follows_the_noise():
    """With few noisy rows the held-out rows ask for a strong pull to the prior, with clean ones for none."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(1, 30, 4, generator=generator, dtype=torch.float64)
    prior = torch.cat([truth, torch.zeros(1, 1, 4, dtype=torch.float64)], 1)

    def fitted(rows, noise, start):
        train, held_out = NormalEquations(start), NormalEquations(start)
        for part in (train, held_out):
            x = torch.randn(1, rows, 30, generator=generator, dtype=torch.float64)
            target = x @ truth + noise * torch.randn(1, rows, 4, generator=generator, dtype=torch.float64)
            part.add(x.float(), target.float())
        return fit(train, held_out, constant=True)

    assert fitted(40, 3.0, prior).ridge == 1e-1
    clean = fitted(500, 0.0, torch.zeros_like(prior))
    assert clean.ridge == 1e-6
    torch.testing.assert_close(clean.solution[:, :-1], truth, rtol=1e-3, atol=1e-3)


def test_large_activations_leave_room_for_fewer_images(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", x=rng.integers(0, 256, (60, 10, 10, 3), np.uint8), y=np.arange(60) % 3)
    model = exported(randomised(Mixed()))
    dataset = open_dataset(tmp_path / "data.npz", InputSpec.of(model), DataOptions())
    form = build(model)
    assert sum(len(batch) for batch in calibration_batches(dataset.train, 30, (form,))) == 30
    few = calibration_batches(dataset.train, 30, (form,), max_held_bytes=400_000)
    assert 2 <= sum(len(batch) for batch in few) < 30
    assert len(few) >= 2
    with pytest.raises(EngineError, match="too few images") as refused:
        calibration_batches(dataset.train, 30, (form,), max_held_bytes=1000)
    assert refused.value.code == TOO_LARGE
    singles = single_images(dataset.train, 30)
    assert [len(batch) for batch in singles] == [1] * 8
    torch.testing.assert_close(torch.cat(singles), next(iter(calibration_batches(dataset.train, 30, (form,))))[:8])


def test_calibration_images_are_augmented_as_the_training_will(tmp_path):
    x = np.random.default_rng(0).integers(1, 256, (40, 10, 10, 3), np.uint8)
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(40) % 2)
    model = exported(randomised(Mixed()))
    train, form = open_dataset(tmp_path / "data.npz", InputSpec.of(model), DataOptions()).train, build(model)
    plain = torch.cat(calibration_batches(train, 20, (form,)))
    assert (plain > 0).all()
    crops = Augmentation(crop_padding=3)
    cropped = torch.cat(calibration_batches(train, 20, (form,), augmentation=crops))
    torch.testing.assert_close(cropped, torch.cat(calibration_batches(train, 20, (form,), augmentation=crops)))
    black = (cropped == 0).all(1)  # what was padded
    assert black[:, [0, -1]].any()
    assert black[:, :, [0, -1]].any()
    for image, original in zip(cropped, plain, strict=True):  # the same images in the same order
        assert torch.isin(image[image > 0], original).all()
    flipped = torch.cat(calibration_batches(train, 20, (form,), augmentation=Augmentation(horizontal_flip=True)))
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(flipped, plain, strict=True)]
    assert any(mirrored)
    assert all(m or torch.equal(a, b) for m, a, b in zip(mirrored, flipped, plain, strict=True))
    (single, *_) = single_images(train, 1, augmentation=crops)
    assert not torch.equal(single, single_images(train, 1)[0])


def test_a_single_image_is_not_taken_for_a_large_one(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 10, 10, 3), np.uint8))
    model = exported(randomised(Mixed()))
    dataset = open_dataset(tmp_path / "data.npz", InputSpec.of(model), DataOptions(test_fraction=0.5))
    assert len(dataset.train) == 1
    assert [len(batch) for batch in calibration_batches(dataset.train, 30, (build(model),))] == [1]


@pytest.mark.parametrize("batch", [1, "n"])
def test_a_blur_of_channels_folded_into_the_samples_is_none_of_them(batch):
    """There are more samples in a batch of images than in the analysis."""
    g = GraphBuilder(17)
    maps = g.node("Relu", g.conv(g.input((batch, 3, 10, 10)), 3, 16))
    planes = g.node("Conv", g.reshape(maps, -1, 1, 10, 10), g.weight(1, 1, 3, 3), pads=[1] * 4)
    maps = g.node("Relu", g.conv(g.reshape(planes, -1, 16, 10, 10), 16, 12))
    model = g.model(g.conv(maps, 12, 4, kernel=1))
    analysis = analyze(model)
    plan = plan_of(analysis, score(analysis, "l2"), analysis.full // 2)
    original, pruned = build(model), build(prune(analysis, plan))
    batches = images(6, count=32 if original.takes_batches else 1)
    before = outputs(pruned, batches)
    fits = reconstruct(analysis, plan, original, pruned, batches)
    layers = [node.name for node in model.graph.node if node.op_type == "Conv"]
    assert [fit.name for fit in fits] == layers[2:]
    error, other = ((outputs(original, batches) - each).square().mean() for each in (outputs(pruned, batches), before))
    assert error < 0.5 * other


class Counted(Rerun):
    """Tells of the values that it holds."""

    held = 0

    def reach(self, node):
        super().reach(node)
        Counted.held = max(Counted.held, len(self._held))


def test_what_is_not_held_is_computed_anew_and_gives_the_same_weights():
    model, batches = exported(randomised(Mixed())), images(4, count=8)
    analysis = analyze(model)
    plan = plan_of(analysis, score(analysis, "l2"), analysis.full // 2)
    original, refitted = build(model), [build(prune(analysis, plan)) for _ in range(2)]
    held = reconstruct(analysis, plan, original, refitted[0], batches)
    assert len(held) == 8
    assert reconstruct(analysis, plan, original, refitted[1], batches, walk_of=Counted) == held
    assert Counted.held == 0
    renormed = [build(prune(analysis, plan)) for _ in range(2)]
    reestimate_norms(renormed[0], batches)
    reestimate_norms(renormed[1], batches, walk_of=Counted)
    for one, other in (refitted, renormed):
        for name, value in one.module.state_dict().items():
            assert torch.equal(value, other.module.state_dict()[name]), name


def test_a_fit_that_is_no_number_is_not_stored():
    """One value that overflowed spoils the sums of its layer: its weights stay."""
    model = exported(nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)))
    analysis = analyze(model)
    plan = plan_of(analysis, score(analysis, "l2"), analysis.full // 2)
    original, pruned = build(model), build(prune(analysis, plan))
    before = {name: value.clone() for name, value in pruned.module.state_dict().items()}
    spoilt = images()
    spoilt[0][0, 0, 0, 0] = float("inf")
    assert reconstruct(analysis, plan, original, pruned, spoilt) == ()
    for name, value in pruned.module.state_dict().items():
        assert torch.equal(value, before[name]), name
