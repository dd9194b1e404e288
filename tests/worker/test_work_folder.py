"""The work folder: what is believed of what a child leaves, and what is cleared up after a killed worker."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.worker.plane import Plane
from worker.leftovers import remove_leftovers
from worker.work_folder import UntrustedOutput, WorkFolder


@pytest.fixture
def folder(tmp_path: Path) -> WorkFolder:
    folder = WorkFolder(tmp_path / "job" / "1")
    folder.create()
    return folder


def test_created_for_its_owner_only(folder: WorkFolder) -> None:
    assert folder.root.stat().st_mode & 0o077 == 0
    (folder.out / "old").touch()
    folder.create()
    assert not list(folder.out.iterdir())


def test_plain_files_are_artifacts(folder: WorkFolder) -> None:
    for name in ("report.html", "pruned.onnx"):
        (folder.out / name).write_text("content")
    assert [path.name for path in folder.artifacts()] == ["pruned.onnx", "report.html"]


@pytest.mark.parametrize(
    "leave",
    [
        lambda out: (out / "pruned.onnx").symlink_to("/etc/passwd"),
        lambda out: (out / "pruned.onnx").hardlink_to(out.parent / "order.json"),
        lambda out: os.mkfifo(out / "pruned.onnx"),
        lambda out: (out / "folder").mkdir(),
        lambda out: (out / "a\nb").touch(),
        lambda out: (out / ".hidden").touch(),
    ],
    ids=["symlink", "hard link", "pipe", "folder", "newline", "hidden"],
)
def test_odd_output_is_not_believed(folder: WorkFolder, leave: Callable[[Path], None]) -> None:
    folder.order.write_text("{}")
    leave(folder.out)
    with pytest.raises(UntrustedOutput):
        folder.artifacts()


def test_documents_are_regular_files(folder: WorkFolder) -> None:
    assert folder.read_document(folder.result) is None
    folder.result.write_text("{}")
    assert folder.read_document(folder.result) == b"{}"
    folder.failure.symlink_to(folder.result)
    with pytest.raises(UntrustedOutput):
        folder.read_document(folder.failure)


def test_pipe_as_document_does_not_block(folder: WorkFolder) -> None:
    os.mkfifo(folder.result)
    with pytest.raises(UntrustedOutput):
        folder.read_document(folder.result)


def test_leftovers(plane: Plane) -> None:
    """Only attempts in progress keep their folders."""
    inputs = plane.ready_inputs()
    running, queued = plane.submit(**inputs), plane.submit(**inputs)
    assert plane.claim() is not None
    work = plane.folder / "work"
    for name in (f"{running}/1", f"{running}/0", f"{queued}/1", "job_unknown/3"):
        (work / name / "out").mkdir(parents=True)
    assert remove_leftovers(plane.database, work) == 3
    assert [path.relative_to(work).as_posix() for path in work.glob("*/*")] == [f"{running}/1"]
    assert [path.name for path in work.iterdir()] == [running]
