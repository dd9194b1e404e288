"""The work folder: what is believed of what a child leaves, and what is cleared up after a killed worker."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.worker.plane import Plane
from tests.worker.test_attempts import ENDLESS
from worker.work_folder import UntrustedOutput, WorkFolder, occupied, remove_leftovers


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


def test_a_killed_process_leaves_what_the_next_one_removes(tmp_path: Path) -> None:
    """A folder stays as long as the process that works in it lives, and not a moment longer."""
    code = (
        "import sys, time; from pathlib import Path; from worker.work_folder import WorkFolder, occupied\n"
        "with occupied(WorkFolder(Path(sys.argv[1]))): print('ready', flush=True); time.sleep(600)"
    )
    work = tmp_path / "work"
    with subprocess.Popen([sys.executable, "-c", code, str(work / "job-1")], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"ready\n"
        with occupied(WorkFolder(work / "job-2")):
            assert remove_leftovers(work) == 0
            assert sorted(path.name for path in work.iterdir()) == ["job-1", "job-2"]
        owner.kill()
    assert [path.name for path in work.iterdir()] == ["job-1"]
    assert remove_leftovers(work) == 1
    assert not list(work.iterdir())


def test_folders_are_not_removed_between_being_made_and_being_occupied(tmp_path: Path) -> None:
    work, stop = tmp_path / "work", threading.Event()

    def remove() -> int:
        removed = 0
        while not stop.is_set():
            removed += remove_leftovers(work)
        return removed

    with ThreadPoolExecutor(1) as other:
        removed = other.submit(remove)
        for number in range(200):
            folder = WorkFolder(work / f"job-{number}")
            with occupied(folder):
                (folder.out / "artifact").touch()
        stop.set()
        assert removed.result() == 0


def test_a_worker_removes_what_a_neighbour_left(plane: Plane) -> None:
    """Nobody starts the killed one again: the one that goes on clears up with its next job."""
    plane.start_sweeper()
    killed = plane.start_worker()
    job_id = plane.submit(**plane.ready_inputs(), finetuning=ENDLESS)
    plane.wait_for_training(job_id)
    plane.start_worker()
    killed.kill()
    killed.wait()
    plane.wait_for_training(job_id, attempt=2)
    assert [path.name for path in (plane.folder / "work").iterdir()] == [f"{job_id}-2"]
