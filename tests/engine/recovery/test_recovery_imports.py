"""What a job loads: torch's compiler takes longer to load than a small job to run."""

from __future__ import annotations

import subprocess
import sys
import textwrap


def test_recovery_does_without_torchs_compiler() -> None:
    recovery = """
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
        print(*sorted({"torch._dynamo", "sympy", "torchvision"} & set(sys.modules)))
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(recovery)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == []
