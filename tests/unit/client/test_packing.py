"""What a path is sent as."""

import hashlib
import os
import tarfile
import zipfile

import pytest

from espalier.errors import NotAnUpload
from espalier.packing import Kind, as_file, recognise


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("net.onnx", Kind("models", "onnx")),
        ("NET.ONNX", Kind("models", "onnx")),
        ("weights.safetensors", Kind("models", "torchvision")),
        ("data.npz", Kind("datasets", "npz")),
        ("images.tar.xz", Kind("datasets", None)),
        ("images.zip", Kind("datasets", None)),
    ],
)
def test_kind_by_name(tmp_path, name, kind):
    (tmp_path / name).touch()
    assert recognise(tmp_path / name) == kind


def test_a_zip_that_holds_a_model_is_one(tmp_path):
    with zipfile.ZipFile(tmp_path / "net.zip", "w") as archive:
        archive.writestr("net/net.onnx", b"")
        archive.writestr("net/net.onnx.data", b"")
    assert recognise(tmp_path / "net.zip") == Kind("models", "onnx_zip")


@pytest.mark.parametrize(("name", "said"), [("net.pt", "pickle"), ("net.pth", "pickle"), ("net.txt", "no ending")])
def test_what_cannot_be_sent_says_why(tmp_path, name, said):
    (tmp_path / name).touch()
    with pytest.raises(NotAnUpload, match=said) as refusal:
        recognise(tmp_path / name)
    assert ".onnx" in refusal.value.hint or "ONNX" in refusal.value.hint


def test_a_missing_path_says_so(tmp_path):
    with pytest.raises(NotAnUpload, match="does not exist"):
        recognise(tmp_path / "nowhere.onnx")


def test_a_folder_becomes_one_tar_that_depends_on_its_files_alone(tmp_path):
    digests = []
    for folder, order in (
        (tmp_path / "a" / "set", ("cat/1.png", "dog/2.png")),
        (tmp_path / "b" / "set", ("dog/2.png", "cat/1.png")),
    ):
        for name in order:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(name.encode())
            os.utime(folder / name, (len(digests), len(digests)))
        with as_file(folder) as archive:
            assert archive.name == "set.tar"
            digests.append(hashlib.sha256(archive.read_bytes()).hexdigest())
            with tarfile.open(archive) as tar:
                assert tar.getnames() == ["cat/1.png", "dog/2.png"]
                assert tar.extractfile("dog/2.png").read() == b"dog/2.png"
        assert not archive.exists()
    assert digests[0] == digests[1]


def test_links_out_of_a_folder_are_not_followed(tmp_path):
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "set"
    (folder / "cat").mkdir(parents=True)
    (folder / "cat" / "1.png").write_bytes(b"1")
    (folder / "cat" / "2.png").symlink_to(tmp_path / "secret")
    (folder / "dog").symlink_to(tmp_path)
    with as_file(folder) as archive, tarfile.open(archive) as tar:
        assert tar.getnames() == ["cat/1.png"]


def test_a_file_is_sent_as_it_is(tmp_path):
    with as_file(tmp_path / "net.onnx") as path:
        assert path == tmp_path / "net.onnx"
