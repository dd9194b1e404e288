"""Datasets of every form are recognised by content and read alike."""

import io
import tarfile
from dataclasses import asdict

import numpy as np
import pytest

from models_store.documents.inspection import DatasetInspection
from tests.engine.data.uploads import npz_of, picture, pictures, tar_of, zip_of
from worker.engine.data import DataOptions, InputSpec, inspect_dataset, open_dataset
from worker.engine.errors import EngineError

RGB8 = InputSpec("NCHW", 3, 6, 8)


@pytest.mark.parametrize("pack", ["zip", "w:", "w:gz", "w:xz"])
def test_archives_of_every_kind(tmp_path, pack):
    files = pictures(["cat", "dog"], 5)
    path = zip_of(tmp_path / "upload", files) if pack == "zip" else tar_of(tmp_path / "upload", files, pack)
    facts = inspect_dataset(path)
    assert (facts.format, facts.classes, facts.samples_per_class) == ("image_folder", ("cat", "dog"), (5, 5))
    assert (facts.shapes, facts.bad_file_count, facts.test_samples) == (("6x8x3",), 0, 0)


@pytest.mark.parametrize("prefix", ["", "data/", "outer/inner/", "./"])
@pytest.mark.parametrize("parts", [("train", "val", "test"), ("Training", "validation", "testing")])
def test_split_folders_and_wrappers(tmp_path, prefix, parts):
    files = {}
    for part, count in zip(parts, (6, 2, 3), strict=True):
        files |= pictures([f"{prefix}{part}/cat", f"{prefix}{part}/dog"], count)
    path = tar_of(tmp_path / "upload", files)
    assert inspect_dataset(path).test_samples == 6
    dataset = open_dataset(path, RGB8)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (12, 4, 6)
    assert dataset.classes == ("cat", "dog")


def test_classes_called_like_splits_beside_others_are_classes(tmp_path):
    assert inspect_dataset(zip_of(tmp_path / "u", pictures(["test", "cat"], 3))).classes == ("cat", "test")


def test_deeper_folders_belong_to_their_class(tmp_path):
    facts = inspect_dataset(zip_of(tmp_path / "u", pictures(["cat/a", "cat/b", "dog"], 3)))
    assert (facts.classes, facts.samples_per_class) == (("cat", "dog"), (6, 3))


@pytest.mark.parametrize("folders", [["."], ["images"], ["data/images"], ["train", "test"]])
def test_images_without_class_folders_have_no_labels(tmp_path, folders):
    path = zip_of(tmp_path / "u", pictures(folders, 6) | {"notes.txt": b"no image"})
    facts = inspect_dataset(path)
    assert (facts.classes, facts.samples_per_class) == ((), ())
    assert (facts.samples, facts.bad_file_count) == (6 * len(folders), 1)
    dataset = open_dataset(path, RGB8)
    assert not dataset.labelled
    assert len(dataset.train) + len(dataset.validation) + len(dataset.test) == facts.samples
    assert len(dataset.test) == facts.test_samples or facts.test_samples == 0


def test_arrays_without_labels(tmp_path):
    x = np.arange(10 * 6 * 8 * 3, dtype=np.uint8).reshape(10, 6, 8, 3)
    path = npz_of(tmp_path / "u", x=x, x_test=x[:3])
    facts = inspect_dataset(path)
    assert (facts.classes, facts.samples, facts.test_samples) == ((), 13, 3)
    assert len(open_dataset(path, RGB8).test) == 3


def test_labels_may_be_left_unused(tmp_path):
    path = zip_of(tmp_path / "u", pictures(["cat", "dog"], 5))
    dataset = open_dataset(path, RGB8, DataOptions(labels=False))
    assert (dataset.labelled, len(dataset.train)) == (False, 7)


def test_bad_files_are_left_out_and_told(tmp_path):
    files = pictures(["cat", "dog"], 6) | {
        "cat/broken.png": picture((1, 2, 3))[:-30],
        "dog/notes.txt": b"no image",
        "readme.png": picture((1, 2, 3)),
        "__MACOSX/cat/._0.png": b"clutter",
        "cat/.DS_Store": b"clutter",
    }
    facts = inspect_dataset(zip_of(tmp_path / "u", files))
    assert facts.samples == 12
    assert facts.bad_file_count == 3
    told = dict(line.split(": ", 1) for line in facts.bad_files)
    assert "cannot be decoded" in told["cat/broken.png"]
    assert "not a JPEG" in told["dog/notes.txt"]
    assert "no class folder" in told["readme.png"]
    assert len(open_dataset(tmp_path / "u", RGB8).test) == 2


@pytest.mark.parametrize(
    ("files", "code", "said"),
    [
        ({"readme.txt": b"x"}, "unusable_dataset", "no usable image"),
        ({"cat/0.png": b"x", "dog/0.png": b"x"}, "unusable_dataset", "no usable image"),
        (pictures(["cat"], 3), "unusable_dataset", "3 images without labels"),
        ({"cat/0.png": picture((1, 2, 3)), "dog/0.png": b"x"}, "unusable_dataset", "Only one class"),
        (pictures(["cat"], 5) | pictures(["dog"], 1), "unusable_dataset", "fewer than 2 images"),
        (pictures(["test/a", "test/b"], 3), "unusable_dataset", "None of its images is for training: 6 for test"),
        (pictures(["val/a", "val/b"], 2), "unusable_dataset", "None of its images is for training: 4 for validation"),
        (pictures(["a", "b"], 2) | {f"a/{i}.jpg": b"x" for i in range(9)}, "unusable_dataset", "unusable"),
    ],
)
def test_too_little_is_refused(tmp_path, files, code, said):
    path = tar_of(tmp_path / "u", files)
    for read in (inspect_dataset, lambda p: open_dataset(p, RGB8)):
        with pytest.raises(EngineError) as caught:
            read(path)
        assert caught.value.code == code
        assert said in caught.value.message


@pytest.mark.parametrize(
    "content", [b"", b"some text", b"\x80\x04\x95pickle", b"PK\x03\x04broken", b"\xfd7zXZ\x00broken"]
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "upload"
    path.write_bytes(content)
    with pytest.raises(EngineError) as caught:
        inspect_dataset(path)
    assert caught.value.code in {"unknown_dataset_format", "broken_archive"}
    assert caught.value.hint


def test_a_truncated_archive_is_told_as_such(tmp_path):
    path = tar_of(tmp_path / "upload", pictures(["cat", "dog"], 50), "w:gz")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(EngineError) as caught:
        inspect_dataset(path)
    assert caught.value.code == "broken_archive"


@pytest.mark.parametrize(
    ("shape", "spec"),
    [((20, 6, 8), InputSpec("NCHW", 1, 6, 8)), ((20, 6, 8, 3), RGB8), ((20, 3, 6, 8), InputSpec("NHWC", 3, 6, 8))],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_npz_in_every_layout(tmp_path, shape, spec, dtype):
    x = np.random.default_rng(0).integers(0, 255, shape).astype(dtype)
    path = npz_of(tmp_path / "u", x=x, y=np.arange(20) % 4)
    facts = inspect_dataset(path)
    assert (facts.format, facts.classes, facts.samples) == ("npz", ("0", "1", "2", "3"), 20)
    dataset = open_dataset(path, spec, DataOptions(test_fraction=0.25, validation_fraction=0.25))
    images, labels = next(dataset.train.batches(50))
    unit = 255 if dtype == np.uint8 else 1
    height_first = x[..., None] if x.ndim == 3 else x if shape[1] == 6 else x.transpose(0, 2, 3, 1)
    expected = height_first[dataset.train.rows].astype(np.float32) / unit
    if spec.layout == "NCHW":
        expected = expected.transpose(0, 3, 1, 2)
    np.testing.assert_allclose(images, expected, rtol=1e-5)
    np.testing.assert_array_equal(labels, dataset.train.rows % 4)


def test_npz_with_test_split_and_class_names(tmp_path):
    x = np.zeros((8, 6, 8), np.uint8)
    path = npz_of(tmp_path / "u", x=x, y=np.array(["b", "a"] * 4), x_test=x[:3], y_test=np.array(["a", "b", "a"]))
    facts = inspect_dataset(path)
    assert (facts.classes, facts.samples, facts.test_samples) == (("a", "b"), 11, 3)
    np.testing.assert_array_equal(open_dataset(path, InputSpec("NCHW", 1, 6, 8)).test.labels, [0, 1, 0])


def test_npz_rows_that_are_not_finite_are_left_out(tmp_path):
    x = np.zeros((10, 4, 4), np.float32)
    x[3] = np.nan
    facts = inspect_dataset(npz_of(tmp_path / "u", x=x, y=np.arange(10) % 2))
    assert (facts.samples, facts.bad_files) == (9, ("x[3]: it holds numbers that are not finite",))


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"images": np.zeros((4, 4, 4), np.uint8)}, "holds images"),
        ({"x": np.zeros((4, 4, 4), np.uint8), "y": np.zeros(3, np.int64)}, "4 rows"),
        ({"x": np.zeros((4, 4), np.uint8), "y": np.zeros(4, np.int64)}, "shape (4, 4)"),
        ({"x": np.zeros((4, 4, 4), np.int64), "y": np.zeros(4, np.int64)}, "type int64"),
        ({"x": np.zeros((4, 4, 4), np.uint8), "y": np.array([0, 1, -1, 0])}, "outside"),
        ({"x": np.zeros((4, 4, 4), np.uint8), "y": np.eye(4)}, "shape (4, 4)"),
        ({"x": np.array([{}, []], object), "y": np.zeros(2, np.int64)}, "type object"),
        ({"x": np.zeros((8, 4, 4), np.uint8), "x_test": np.zeros((4, 4, 4))}, "x and x_test differ in type"),
    ],
)
def test_other_arrays_are_refused(tmp_path, arrays, said):
    with pytest.raises(EngineError) as caught:
        inspect_dataset(npz_of(tmp_path / "u", **arrays))
    assert caught.value.code == "unreadable_npz"
    assert said in caught.value.message


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_npz_is_told_as_such(tmp_path, save):
    """Bytes anywhere in it are overwritten: in the data, in the names, in the directory at the end."""
    x = np.tile(np.arange(48, dtype=np.uint8).reshape(6, 8, 1), (20, 1, 1, 3))
    save(tmp_path / "u.npz", x=x, y=np.arange(20) % 2)
    content, codes = (tmp_path / "u.npz").read_bytes(), set()
    for start in (0, len(content) - 300):
        for at in range(start, start + 300, 2):
            damaged = bytearray(content)
            damaged[at : at + 3] = b"\xff" * 3
            (tmp_path / "u.npz").write_bytes(damaged)
            try:
                inspect_dataset(tmp_path / "u.npz")
            except EngineError as error:
                codes.add(error.code)
    assert "broken_archive" in codes


def test_an_encrypted_npz_is_refused(tmp_path):
    content = bytearray(npz_of(tmp_path / "u", x=np.zeros((8, 4, 4), np.uint8), y=np.arange(8) % 2).read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.find(signature) + offset] |= 1
    (tmp_path / "u").write_bytes(content)
    with pytest.raises(EngineError, match=r"'x.npy' cannot be read, it is encrypted"):
        inspect_dataset(tmp_path / "u")


@pytest.mark.shared
def test_the_shared_cifar_images(shared):
    facts = inspect_dataset(shared / "data" / "cifar10_mini.tar.xz")
    assert (facts.samples, len(facts.classes), facts.shapes) == (2000, 10, ("32x32x3",))


def test_names_that_are_not_utf_8_become_text_and_stay_different(tmp_path):
    with tarfile.open(tmp_path / "u", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        for name, content in (pictures(["café", "cafè", "thé"], 6) | {"thé/résumé.txt": b"hi"}).items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    facts = inspect_dataset(tmp_path / "u")
    assert facts.classes == (r"caf\xe8", r"caf\xe9", r"th\xe9")
    told = DatasetInspection.model_validate(asdict(facts)).model_dump_json()
    assert DatasetInspection.model_validate_json(told).samples_per_class == (6, 6, 6)
