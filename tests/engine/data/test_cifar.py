"""The CIFAR archives, Python and binary version, as they are published: seen by content and read without unpickling."""

import pickle

import numpy as np
import pytest

from tests.cifar_files import (
    NAMES,
    binary_files,
    dumped_by_python_2,
    dumped_with,
    images_of,
    packed,
    python_files,
    rows_of,
)
from tests.engine.data.uploads import pictures, tar_of
from worker.engine.data import DataOptions, InputSpec, inspect_dataset, open_dataset
from worker.engine.data.pickled import UnreadablePickleError, read_pickle
from worker.engine.errors import EngineError

TEN = {"data_batch_1": images_of(16, 1), "data_batch_2": images_of(12, 2), "test_batch": images_of(8, 3)}
HUNDRED = {"train": images_of(28, 1), "test": images_of(8, 3)}
WHOLE = DataOptions(validation_fraction=0.1)
SPEC = InputSpec("NHWC", 3, 32, 32)

ARCHIVES = {
    "ten by Python 2": ("cifar_python", python_files(TEN, dumped_by_python_2, fine=False)),
    "hundred by Python 2": ("cifar_python", python_files(HUNDRED, dumped_by_python_2, fine=True)),
    **{f"ten, protocol {n}": ("cifar_python", python_files(TEN, dumped_with(n), fine=False)) for n in range(6)},
    "ten in binary": ("cifar_binary", binary_files(TEN, fine=False)),
    "hundred in binary": ("cifar_binary", binary_files(HUNDRED, fine=True)),
}


@pytest.fixture
def save(tmp_path):
    def run(content):
        (tmp_path / "upload").write_bytes(content)
        return tmp_path / "upload"

    return run


@pytest.mark.parametrize("what", ARCHIVES)
def test_the_published_forms(save, what):
    format, files = ARCHIVES[what]
    path = save(packed(files))
    facts = inspect_dataset(path)
    assert (facts.format, facts.classes, facts.shapes) == (format, NAMES, ("32x32x3",))
    assert (facts.samples, facts.samples_per_class, facts.test_samples) == (36, (9, 9, 9, 9), 8)
    assert (facts.bad_files, facts.bad_file_count) == ((), 0)


@pytest.mark.parametrize("what", ARCHIVES)
def test_the_test_split_is_the_archives_own_to_the_pixel(save, what):
    dataset = open_dataset(save(packed(ARCHIVES[what][1])), SPEC, WHOLE)
    assert dataset.classes == NAMES
    images, labels = next(dataset.test.batches(100))
    expected, numbers = images_of(8, 3)
    np.testing.assert_array_equal((images * 255).round().astype(np.uint8), expected)
    np.testing.assert_array_equal(labels, numbers)
    assert len(dataset.train) + len(dataset.validation) == 28
    assert len(dataset.validation) >= 4


@pytest.mark.parametrize("how", ["zip", "w:", "w:gz", "w:xz"])
@pytest.mark.parametrize("folder", ["cifar-10-batches-py", ".", "a/b"])
def test_every_packing(save, how, folder):
    for format, files in (ARCHIVES["ten, protocol 2"], ARCHIVES["ten in binary"]):
        assert inspect_dataset(save(packed(files, how, folder))).format == format


def test_without_names_the_classes_are_numbers(save):
    files = binary_files(TEN, fine=False)
    del files["batches.meta.txt"]
    assert inspect_dataset(save(packed(files))).classes == ("0", "1", "2", "3")


def test_classes_without_images_keep_their_numbers(save):
    images, labels = images_of(24)
    files = binary_files({"data_batch_1": (images[labels < 2], labels[labels < 2])}, fine=False)
    facts = inspect_dataset(save(packed(files)))
    assert (facts.classes, facts.samples_per_class) == (NAMES, (6, 6, 0, 0))


def test_bad_batches_are_left_out_and_told(save):
    python = python_files(TEN, dumped_with(2), fine=False)
    python["data_batch_3"] = python["data_batch_1"][:-500]
    python["data_batch_4"] = pickle.dumps({"labels": [0, 1], "data": np.zeros((3, 3072), np.uint8)})
    python["data_batch_5"] = pickle.dumps({"labels": [0, 999], "data": np.zeros((2, 3072), np.uint8)})
    python["notes.txt"] = b"notes"
    facts = inspect_dataset(save(packed(python | {"readme.html": b"<html>"})))
    told = dict(line.removeprefix("cifar-10-batches-py/").split(": ", 1) for line in facts.bad_files)
    assert told.keys() == {"data_batch_3", "data_batch_4", "data_batch_5", "notes.txt"}
    assert "no sound pickle" in told["data_batch_3"]
    assert "3 images and 2 labels" in told["data_batch_4"]
    assert "not numbers from 0 to 255" in told["data_batch_5"]
    assert (facts.samples, facts.bad_file_count) == (36, 4)


def test_a_cut_binary_batch_is_told(save):
    files = binary_files(TEN, fine=False)
    files["data_batch_2.bin"] = files["data_batch_2.bin"][:-1]
    facts = inspect_dataset(save(packed(files)))
    assert (facts.samples, facts.bad_file_count) == (24, 1)
    assert "not whole records of 3,073" in facts.bad_files[0]


def test_image_folders_whose_folders_are_called_like_batches_stay_image_folders(save, tmp_path):
    path = tar_of(tmp_path / "u", pictures(["train/test", "train/cat", "test/test", "test/cat"], 3))
    assert inspect_dataset(path).format == "image_folder"


PLAIN = {
    "texts": {"a": "é", "b": b"\x00\xff", "c": [True, False, None]},
    "numbers": {"d": [0, 255, 65536, -1, 2**40, 1.5], "e": (), "f": (1,), "g": (1, 2), "h": (1, 2, 3), "i": (1,) * 5},
    "deep": {"j": {"k": [[], {}]}, "l": ["x" * 300, "y" * 70_000]},
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("what", PLAIN)
def test_plain_data_is_read_as_python_reads_it(what, protocol):
    assert read_pickle(pickle.dumps(PLAIN[what], protocol)) == PLAIN[what]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["u1", "<i8", ">i2", "f4", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_read_as_numpy_reads_them(protocol, dtype, order):
    array = np.asarray(np.arange(24).reshape(2, 3, 4), dtype, order=order)
    found = read_pickle(pickle.dumps({"array": array, "number": array[1, 2, 3]}, protocol))
    np.testing.assert_array_equal(found["array"], array)
    assert found["number"] == array[1, 2, 3]


class Call:
    def __init__(self, function, *arguments):
        self.made = function, arguments

    def __reduce__(self):
        return self.made


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("call", [Call(print, "called"), Call(exec, "1"), Call(getattr, [], "append")])
def test_calls_are_refused_by_name_and_not_made(protocol, call, capsys):
    with pytest.raises(EngineError, match=r"builtin|__builtin__") as caught:
        read_pickle(pickle.dumps({"data": call}, protocol))
    assert caught.value.code == "pickle_refused"
    assert capsys.readouterr().out == ""


BROKEN = {
    "nothing": b"",
    "text": b"hello",
    "no end": pickle.dumps([1, 2])[:-1],
    "an empty stack": b"\x80\x02.",
    "a mark that is not there": b"\x80\x02e.",
    "a number that nothing has": b"\x80\x02h\x07.",
    "a call of a number": b"\x80\x02K\x01)R.",
    "an object of a class": b"\x80\x02cbuiltins\nset\n)\x81.",
    "an object by its class": b"(cbuiltins\nset\no.",
    "a name by number": b"\x80\x02\x82\x01.",
    "a persistent name": b"Pname\n.",
    "a dict by lists": b"\x80\x02}]K\x01s.",
    "more bytes than there are": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f" + b"abc.",
    "an array of objects": pickle.dumps(np.array([{}, []], object)),
    "an array of text": pickle.dumps(np.array(["a"])),
    "a batch of times": pickle.dumps(np.array([0], "M8[s]")),
}


@pytest.mark.parametrize("what", BROKEN)
def test_other_pickles_are_unreadable(what):
    with pytest.raises(UnreadablePickleError):
        read_pickle(BROKEN[what])


def test_an_array_needs_its_bytes():
    whole = pickle.dumps(rows_of(images_of(4)[0]), protocol=2)
    claimed = whole.replace(b"K\x04M\x00\x0c\x86", b"K\x05M\x00\x0c\x86")
    assert claimed != whole
    with pytest.raises(UnreadablePickleError, match="12,288 bytes for the shape"):
        read_pickle(claimed)


@pytest.mark.filterwarnings("ignore:invalid escape")
def test_bytes_at_random_are_unreadable_at_most():
    """A batch with bytes changed ends in an error of ours or in data, and never in another exception."""
    rng = np.random.default_rng(0)
    sound = [dumped_by_python_2({"labels": [0, 1], "data": np.zeros((2, 6), np.uint8)})]
    sound += [pickle.dumps({"labels": [0, 1], "data": np.zeros((2, 6), np.uint8)}, protocol) for protocol in range(6)]
    refused = 0
    for round in range(3000):
        content = bytearray(sound[round % len(sound)])
        for _ in range(rng.integers(1, 4)):
            content[rng.integers(len(content))] = rng.integers(256)
        try:
            read_pickle(bytes(content))
        except (UnreadablePickleError, EngineError):
            refused += 1
    assert refused > 1000
