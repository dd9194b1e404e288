"""Splits, fit to the model's input, normalisation, and augmentation."""

import io

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from PIL import Image

from tests.engine.data.uploads import npz_of, picture, pictures, tar_of, zip_of
from worker.engine.data import Augmentation, DataOptions, InputSpec, open_dataset
from worker.engine.data.images import decode, fit
from worker.engine.data.pixels import PixelStore
from worker.engine.errors import EngineError

GREY = InputSpec("NCHW", 1, 4, 4)


@pytest.fixture
def numbered(tmp_path):
    """120 images of three unequal classes; every pixel of image i is i."""
    x = np.arange(120, dtype=np.uint8)[:, None, None] * np.ones((4, 4), np.uint8)
    y = np.repeat([0, 1, 2], (60, 40, 20))
    return npz_of(tmp_path / "numbered", x=x, y=y)


def identities(split):
    return {round(float(image[0, 0, 0]) * 255) for images, _ in split.batches(16) for image in images}


def test_splits_are_disjoint_complete_and_stratified(numbered):
    dataset = open_dataset(numbered, GREY, DataOptions(test_fraction=0.2, validation_fraction=0.1))
    parts = [identities(s) for s in (dataset.train, dataset.validation, dataset.test)]
    assert [len(p) for p in parts] == [86, 10, 24]
    assert set.union(*parts) == set(range(120))
    np.testing.assert_array_equal(np.bincount(dataset.test.labels), [12, 8, 4])


def test_the_seed_alone_decides_the_splits(numbered):
    first, again, other = (identities(open_dataset(numbered, GREY, seed=s).test) for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_the_validation_share_does_not_move_the_test_split(numbered):
    few, many = (open_dataset(numbered, GREY, DataOptions(validation_fraction=f)) for f in (0.1, 0.4))
    assert identities(few.test) == identities(many.test)


def test_the_order_of_an_archive_does_not_matter(tmp_path):
    files = pictures(["a", "b"], 20)
    spec = InputSpec("NCHW", 3, 6, 8)
    forward = open_dataset(tar_of(tmp_path / "f", files), spec, seed=3)
    backward = open_dataset(zip_of(tmp_path / "b", dict(reversed(files.items()))), spec, seed=3)
    for (x, y), (u, v) in zip(forward.test.batches(100), backward.test.batches(100), strict=True):
        np.testing.assert_array_equal(x, u)
        np.testing.assert_array_equal(y, v)


def test_batches_are_shuffled_by_their_generator_and_cover_all(numbered):
    split = open_dataset(numbered, GREY).train
    orders = [[y for _, y in split.batches(7, rng=np.random.default_rng(seed))] for seed in (0, 0, 1)]
    assert all(sum(len(y) for y in order) == len(split) for order in orders)
    assert all((a == b).all() for a, b in zip(orders[0], orders[1], strict=True))
    assert any((a != b).any() for a, b in zip(orders[0], orders[2], strict=True))


def test_normalisation(tmp_path):
    x = np.full((8, 4, 4, 3), (0, 51, 255), np.uint8)
    path = npz_of(tmp_path / "u", x=x, y=np.arange(8) % 2)
    options = DataOptions(mean=(0.5, 0.2, 0.0), std=(0.5, 1.0, 2.0))
    images, labels = next(open_dataset(path, InputSpec("NCHW", 3, 4, 4), options).train.batches(2))
    assert (images.dtype, labels.dtype) == (np.float32, np.int64)
    np.testing.assert_allclose(images[0, :, 0, 0], [-1.0, 0.0, 0.5], atol=1e-6)


@pytest.mark.parametrize(
    ("spec", "told", "hint"),
    [
        (GREY, "images of 1 channel.", "Give one value of each for all channels."),
        (InputSpec("NCHW", 3, None, None), "images of 3 channels.", "Give one value of each for all channels, or 3."),
    ],
)
def test_a_mean_of_the_wrong_length_is_told(numbered, spec, told, hint):
    with pytest.raises(EngineError) as caught:
        open_dataset(numbered, spec, DataOptions(mean=(0.1, 0.2), std=(1.0,)))
    assert caught.value.code == "normalisation_mismatch"
    assert caught.value.message == f"data.mean has 2 values and data.std 1 value; the model takes {told}"
    assert caught.value.hint == hint


def test_floating_point_images_are_taken_as_they_are(tmp_path):
    x = np.full((8, 4, 4, 1), 51.0, np.float32)
    path = npz_of(tmp_path / "f", x=x, y=np.arange(8) % 2)
    images, _ = next(open_dataset(path, InputSpec("NCHW", 1, 4, 4), DataOptions((1.0,), (2.0,))).train.batches(2))
    np.testing.assert_allclose(images, 25.0)


@pytest.mark.parametrize(
    ("spec", "converted"),
    [
        (InputSpec("NCHW", 3, 4, 4), 0),
        (InputSpec("NCHW", None, None, None), 0),
        (InputSpec("NCHW", 3, 8, 4), 8),
        (InputSpec("NHWC", 1, 4, 4), 8),
    ],
)
def test_images_that_had_to_be_made_to_fit_are_counted(tmp_path, spec, converted):
    path = npz_of(tmp_path / "c", x=np.zeros((8, 4, 4, 3), np.uint8), y=np.arange(8) % 2)
    assert open_dataset(path, spec).converted == converted


@pytest.mark.parametrize("size", [(5, 6), (None, None)])
@pytest.mark.parametrize("axis", [1, 3])
def test_many_channels_may_come_first_or_last(tmp_path, axis, size):
    """Twelve spectral bands: only the model tells them apart from a height."""
    bands = np.random.default_rng(0).normal(size=(8, 12, 5, 6)).astype(np.float32)
    path = npz_of(tmp_path / "u.npz", x=np.moveaxis(bands, 1, axis))
    dataset = open_dataset(path, InputSpec("NCHW", 12, *size))
    images = np.concatenate([next(s.batches(8))[0] for s in (dataset.train, dataset.validation, dataset.test)])
    np.testing.assert_allclose(sorted(images.std((2, 3)).ravel()), sorted(bands.std((2, 3)).ravel()), rtol=1e-5)
    assert images.shape == bands.shape
    assert dataset.converted == 0


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_images_of_every_mode_fit_grey_and_colour(mode):
    buffer = io.BytesIO()
    image = Image.new("RGB", (8, 6), (200, 200, 200)).convert(mode)
    image.save(buffer, "JPEG" if mode == "CMYK" else "PNG", quality=100)
    for channels in (1, 3, 4):
        fitted = fit(decode(buffer.getvalue()), InputSpec("NCHW", channels, 6, 8))
        assert fitted.shape == (6, 8, channels)
        expected = np.asarray(image.convert("L"), np.float32)
        np.testing.assert_allclose(fitted[:, :, 0], expected, atol=2)


@pytest.mark.parametrize(("present", "wanted"), [(2, 1), (2, 3), (2, 4), (5, 3), (3, 2)])
def test_channels_that_are_no_colours_are_not_made_into_others(present, wanted):
    image = np.zeros((6, 8, present), np.uint8)
    assert fit(image, InputSpec("NCHW", present, 6, 8)).shape == image.shape
    with pytest.raises(EngineError, match=f"takes {wanted} channels and the images have {present}"):
        fit(image, InputSpec("NCHW", wanted, 6, 8))


def test_sixteen_bit_grey_keeps_its_upper_byte():
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), 200 * 256 + 17, np.uint16)).save(buffer, "PNG")
    np.testing.assert_array_equal(decode(buffer.getvalue()), np.full((4, 4, 1), 200))


def test_other_sizes_are_resampled(tmp_path):
    files = pictures(["a", "b"], 4, size=(8, 6)) | {f"a/{i}x.png": picture((9, 9, 9), size=(5, 30)) for i in range(4)}
    dataset = open_dataset(zip_of(tmp_path / "u", files), InputSpec("NHWC", 3, 12, 10))
    images, _ = next(dataset.train.batches(100))
    assert images.shape[1:] == (12, 10, 3)


def test_floating_point_images_are_resampled_without_rounding():
    ramp = np.linspace(0, 1, 8, dtype=np.float32)[None, :, None].repeat(8, 0)
    fitted = fit(ramp, InputSpec("NCHW", 1, 4, 4))
    assert fitted.dtype == np.float32
    assert np.all(np.diff(fitted[0, :, 0]) > 0.1)


def test_open_dimensions_follow_the_commonest_image(tmp_path):
    files = pictures(["a", "b"], 4, size=(8, 6)) | {f"b/{i}x.png": picture(7, size=(9, 9), mode="L") for i in range(3)}
    dataset = open_dataset(zip_of(tmp_path / "u", files), InputSpec("NCHW", 3, None, None))
    assert next(dataset.train.batches(2))[0].shape[1:] == (3, 6, 8)


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        (("n", 3, 32, 32), InputSpec("NCHW", 3, 32, 32)),
        ((1, 28, 28, 1), InputSpec("NHWC", 1, 28, 28)),
        (("n", 3, "h", "w"), InputSpec("NCHW", 3, None, None)),
        (("n", 64, 8, 8), InputSpec("NCHW", 64, 8, 8)),
    ],
)
def test_the_spec_of_a_model(shape, spec):
    assert InputSpec.of(model_with_inputs(shape)) == spec


@pytest.mark.parametrize("shapes", [((1, 10),), ((1, 3, 8, 8), (1, 3, 8, 8))])
def test_a_model_without_one_image_input_is_told(shapes):
    with pytest.raises(EngineError) as caught:
        InputSpec.of(model_with_inputs(*shapes))
    assert caught.value.code == "not_an_image_model"


@given(
    batch=st.integers(1, 5), size=st.integers(2, 6), pad=st.integers(0, 4), flip=st.booleans(), seed=st.integers(0, 99)
)
def test_augmented_images_are_windows_of_the_padded_original(batch, size, pad, flip, seed):
    images = np.random.default_rng(seed).integers(1, 255, (batch, size, size, 2), np.uint8)
    augmented = Augmentation(pad, flip)(images, np.random.default_rng(seed))
    assert augmented.shape == images.shape
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    for original, result in zip(padded, augmented, strict=True):
        windows = (
            window[:, ::step]
            for step in ((1, -1) if flip else (1,))
            for y in range(2 * pad + 1)
            for x in range(2 * pad + 1)
            for window in (original[y : y + size, x : x + size],)
        )
        assert any(np.array_equal(result, window) for window in windows)


def test_augmentation_varies_between_images():
    images = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1).repeat(200, 0)
    augmented = Augmentation(2, True)(images, np.random.default_rng(0))
    assert len(np.unique(augmented.reshape(200, -1), axis=0)) > 30  # of 2 x 25
    flipped = Augmentation(0, True)(images, np.random.default_rng(0))
    assert 70 < (flipped[:, 0, 0, 0] == 7).sum() < 130


def test_many_images_move_to_a_file(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (20, 5, 4, 3), np.uint8)
    stores = [PixelStore(tmp_path, limit=limit) for limit in (10**6, 300)]
    for store in stores:
        for image in images:
            store.append(image)
        np.testing.assert_array_equal(store.array(), images)
    assert not isinstance(stores[0].array(), np.memmap)
    assert isinstance(stores[1].array(), np.memmap)
    assert list(tmp_path.iterdir()) == []


def model_with_inputs(*shapes) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, s) for i, s in enumerate(shapes)]
    graph = helper.make_graph([helper.make_node("Relu", ["x0"], ["y"])], "g", values, [])
    return helper.make_model(graph)
