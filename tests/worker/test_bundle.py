"""Zips of models and their weights: what is refused before anything is unpacked."""

import stat
import zipfile
from pathlib import Path

import pytest

from worker.engine.errors import EngineError
from worker.runner.bundle import join_bundle


def packed(path: Path, *members: tuple[str, bytes], mode: int = 0o644 | stat.S_IFREG) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return path


MODEL = ("model.onnx", b"no model")
REFUSED = {
    "a path that leads out": ([MODEL, ("../weights", b"x")], "unsafe_archive"),
    "an absolute path": ([MODEL, ("/tmp/weights", b"x")], "unsafe_archive"),
    "no model": ([("weights", b"x")], "not_a_bundle"),
    "two models": ([MODEL, ("other.onnx", b"x")], "not_a_bundle"),
    "a file that is also a folder": ([MODEL, ("model.onnx/weights", b"x")], "unsafe_archive"),
    "a model that is none": ([MODEL], "not_onnx"),
    "more than it may have": ([MODEL, ("weights", bytes(2000))], "too_large"),
}


@pytest.mark.parametrize(("members", "code"), REFUSED.values(), ids=REFUSED)
def test_refused_with_a_reason(tmp_path: Path, members: list[tuple[str, bytes]], code: str) -> None:
    folder = tmp_path / "unpacked"
    folder.mkdir()
    with pytest.raises(EngineError) as refused:
        join_bundle(packed(tmp_path / "bundle.zip", *members), folder, max_bytes=1000)
    assert refused.value.code == code
    assert {path.name for path in tmp_path.iterdir()} == {"bundle.zip", "unpacked"}
    if code != "not_onnx":
        assert list(folder.iterdir()) == []


def test_a_link_is_refused(tmp_path: Path) -> None:
    archive = packed(tmp_path / "bundle.zip", MODEL, ("weights", b"/etc/passwd"), mode=0o777 | stat.S_IFLNK)
    with pytest.raises(EngineError) as refused:
        join_bundle(archive, tmp_path / "unpacked", max_bytes=1000)
    assert refused.value.code == "unsafe_archive"


def test_broken_zips(tmp_path: Path) -> None:
    whole = packed(tmp_path / "bundle.zip", MODEL).read_bytes()
    (tmp_path / "bundle.zip").write_bytes(whole[:40] + b"\0" * 8 + whole[48:-30])
    with pytest.raises(EngineError) as refused:
        join_bundle(tmp_path / "bundle.zip", tmp_path / "unpacked", max_bytes=1000)
    assert refused.value.code == "broken_archive"
