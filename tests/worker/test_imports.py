"""What a process loads: no parser and no torch outside the child, which keeps workers small and alive, and in the child
no compiler, which takes longer to load than a small job to run."""

import subprocess
import sys
import textwrap
from pathlib import Path

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


def test_a_job_without_data_needs_no_torch(tmp_path: Path) -> None:
    script = """
        import sys
        from pathlib import Path
        from tests.worker.networks import convnet
        from tests.worker.orders import order_for
        from worker.runner.pipeline import run_pipeline
        from worker.runner.voice import Voice
        from worker.work_folder import WorkFolder

        folder = WorkFolder(Path(sys.argv[1]))
        folder.create()
        with open("/dev/null", "w") as silence:
            order = order_for(folder, convnet(), None, silence.fileno(), measuring={"rounds": 5})
            assert run_pipeline(order, folder, Voice(silence.fileno())).proof.passed
        print(sorted({"torch", "scipy.optimize"} & set(sys.modules)))
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "work")]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"


def test_recovery_does_without_torchs_compiler() -> None:
    script = """
        import sys
        import torch
        from tests.worker.networks import convnet
        from worker.engine.allocation import allocate, macs_limit
        from worker.engine.criteria import score
        from worker.engine.graph import analyze
        from worker.engine.recovery import reconstruct, reestimate_norms
        from worker.engine.surgery import prune
        from worker.engine.torch_form import build
        from worker.runner import attempt

        analysis = analyze(convnet())
        plan = allocate(analysis, score(analysis, "l2"), [macs_limit(analysis, 0.5)]).plan
        form, images = build(prune(analysis, plan)), list(torch.rand(2, 64, 3, 12, 12))
        reestimate_norms(form, images)
        assert reconstruct(analysis, plan, build(analysis.graph.model), form, images)
        print(sorted({"torch._dynamo", "sympy", "torchvision"} & set(sys.modules)))
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"
