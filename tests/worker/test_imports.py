"""The boundary that keeps workers small and alive: no parser and no torch outside the child."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "onnx", "onnxruntime", "numpy", "PIL", "worker.engine", "worker.runner", "app")


@pytest.mark.parametrize("module", ["worker.celery_app", "worker.tasks", "worker.sweeper", "worker.__main__"])
def test_worker_is_light(module: str) -> None:
    script = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"


def test_inspections_need_neither_torch_nor_the_database() -> None:
    absent = ("torch", "sqlalchemy", "celery", "models_store.database", "models_store.jobs")
    script = f"import sys, worker.runner.inspection; print([name for name in {absent!r} if name in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"


def test_pipeline_needs_no_database() -> None:
    absent = ("sqlalchemy", "celery", "models_store.database", "models_store.jobs", "models_store.blobs")
    script = f"import sys, worker.runner.pipeline; print([name for name in {absent!r} if name in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"
