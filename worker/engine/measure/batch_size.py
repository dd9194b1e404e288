"""The batch sizes at which a model can be measured."""

from __future__ import annotations

from worker.engine.errors import EngineError
from worker.engine.graph.analysis import Analysis
from worker.engine.graph.inputs import with_batch


def batch_taken(analysis: Analysis, wanted: int) -> int:
    """The batch size that is wanted, or the model's own where that is fixed."""
    sizes = analysis.facts.sizes
    return analysis.facts.batch if with_batch(analysis.graph, sizes, wanted) == sizes else wanted


def does_not_run(batch: int, error: Exception) -> EngineError:
    """What is told where the model declares any batch size and fails at this one."""
    return EngineError(
        "batch_size_does_not_run",
        f"ONNX Runtime cannot run the model at batch size {batch}: {str(error)[:1000]}",
        "Set budget.latency_batch_size and measuring.batch_sizes to sizes that the model runs at, such as 1.",
    )
