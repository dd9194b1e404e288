"""The planes that serve and dispatch start without the engine: their images carry neither torch nor onnx."""

import subprocess
import sys

import pytest

from tests.api.processes import ROOT

ENGINE = {"torch", "onnx", "onnxruntime", "onnxscript", "numpy", "PIL", "torchvision"}


@pytest.mark.parametrize(
    ("module", "strangers"), [("app.main", {"worker", "espalier"}), ("worker.celery_app", {"app", "espalier"})]
)
def test_a_plane_imports_neither_the_engine_nor_another_plane(module: str, strangers: set[str]) -> None:
    program = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert "models_store" in loaded
    assert loaded & (ENGINE | strangers) == set()
