"""forecast: how long the whole prune job would take here, and how much GPU memory its training."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

import onnx

from models_store.documents.base import Document
from models_store.documents.estimate_report import Forecast, StageForecast, TrainingMemory
from models_store.documents.job_spec import Measuring
from models_store.documents.report import BudgetVerdict
from worker.engine.allocation import Allocation
from worker.engine.errors import EngineError
from worker.engine.graph import sample_inputs
from worker.engine.measure.session import cpu_session
from worker.engine.proof import prove
from worker.engine.surgery import prune
from worker.runner.budget import latency_table
from worker.runner.stages.estimate import channel_scores, to_budget
from worker.runner.workbench import Stage, Workbench

if TYPE_CHECKING:
    from worker.engine.recovery.step_cost import StepCost

T = TypeVar("T")

_RUNTIME_BYTES = 700 * 2**20
"""CUDA context and cuDNN workspace: 0.4 to 0.7 GiB on recent GPUs."""
_START_S = 6.0
"""Starting the child process and loading torch."""
_REFIT_PASSES, _NORM_PASSES = 8, 2
"""Forward passes that least-squares reconstruction and BN re-estimation take as long as."""
_BATCH = 8


class Forecasted(Document):
    """The forecast, and which part of it grows with the MACs that remain."""

    forecast: Forecast
    by_macs_s: float
    warnings: tuple[str, ...]

    def total_at(self, macs_ratio: float) -> float:
        """Seconds of the job at another budget."""
        scale = macs_ratio / max(self.forecast.macs_ratio, 1e-9)
        return self.forecast.total_s + self.by_macs_s * (scale - 1)


def run(bench: Workbench) -> Forecasted:
    with bench.memory.sparing() as spared:
        chosen, plan_s = _timed(lambda: to_budget(bench, channel_scores(bench)))
    plan_s += sum(spared.values())
    bench.voice.progress(0.2)
    cut, cut_s = _timed(lambda: prune(bench.analysis, chosen.plan))
    _, proof_s = _timed(lambda: prove(bench.analysis, chosen.plan, cut, seed=bench.work.seed, inputs_per_size=1))
    bench.voice.progress(0.5)
    per_image = _seconds_per_image(cut, bench.order.threads)
    macs_ratio = chosen.macs / max(bench.analysis.macs, 1)
    step, warnings = _step(bench, cut)
    bench.voice.progress(0.9)
    stages = [
        StageForecast(name="start", seconds=_START_S, how="an allowance"),
        StageForecast(name="estimate", seconds=plan_s, how="done once here"),
        StageForecast(name="prune", seconds=cut_s + 2 * proof_s, how="surgery and half of its proof done once here"),
        *_with_data(bench, per_image, macs_ratio, step),
        _measure(bench, chosen),
    ]
    return Forecasted(
        forecast=Forecast(
            macs_ratio=macs_ratio,
            budget=tuple(_verdict(line.name, line.goal, line.value, line.reason) for line in chosen.lines),
            stages=tuple(stages),
            total_s=sum(stage.seconds for stage in stages),
            memory=None if step is None else _memory(bench, step),
        ),
        by_macs_s=sum(stage.seconds for stage in stages if stage.name in ("finetune", "recover", "evaluate"))
        - (0 if step is None else _lessons(bench) * _teacher_s(step, macs_ratio)),
        warnings=warnings,
    )


def _with_data(bench: Workbench, per_image: float, macs_ratio: float, step: StepCost | None) -> Iterator[StageForecast]:
    """Stages that a data-free job leaves out."""
    data, work = bench.dataset, bench.work
    if data is None:
        return
    original = per_image / max(macs_ratio, 1e-9)
    how = f"{1000 * per_image:.3g} ms per image, measured on the cut model"
    yield StageForecast(
        name="baseline", seconds=len(data.test) * original, how=f"{len(data.test)} test images; {how}, scaled by MACs"
    )
    yield StageForecast(name="evaluate", seconds=3 * len(data.test) * per_image, how=f"three times; {how}")
    if step is None:
        return
    refits = work.recovery.reconstruction is not False
    if refits or work.recovery.reestimates:
        passes, images = (
            _REFIT_PASSES if refits else _NORM_PASSES,
            min(work.recovery.calibration_images, len(data.train)),
        )
        yield StageForecast(
            name="recover",
            seconds=images * passes * step.forward_s,
            how=f"{images} images, counted as {passes} forward passes of {1000 * step.forward_s:.3g} ms each",
        )
    if work.finetuning.epochs:
        epoch = len(data.train) * step.step_s + len(data.validation) * step.forward_s
        teacher = _teacher_s(step, macs_ratio)
        taught = f"; with {1000 * teacher:.3g} ms more for the original, its teacher" if _lessons(bench) else ""
        yield StageForecast(
            name="finetune",
            seconds=work.finetuning.epochs * epoch + _lessons(bench) * teacher,
            how=f"{work.finetuning.epochs} epochs of {len(data.train)} images, {1000 * step.step_s:.3g} ms per image: "
            f"a training step of the cut model on {step.images} images, measured on {step.device}{taught}",
        )


def _lessons(bench: Workbench) -> int:
    """Images, counted as often as the finetuning asks the original what it makes of them."""
    data, tuning = bench.dataset, bench.work.finetuning
    if data is None or (data.labelled and tuning.distillation == 0):
        return 0
    return tuning.epochs * len(data.train)


def _teacher_s(step: StepCost, macs_ratio: float) -> float:
    """A forward pass of the original for one image, from that of the cut model by the MACs of both."""
    return step.forward_s / max(macs_ratio, 1e-9)


def _measure(bench: Workbench, chosen: Allocation) -> StageForecast:
    table, measuring = latency_table(bench), Measuring()
    both = (table.whole + float(table.cost(chosen.plan.counts(bench.analysis)))) / 1000
    warm_up = max(0.6, 5 * both)
    return StageForecast(
        name="measure",
        seconds=warm_up + max(measuring.rounds * both, 0.02 * measuring.rounds),
        how=f"{measuring.rounds} rounds at batch size 1, by the table of layer times",
    )


def _memory(bench: Workbench, step: StepCost) -> TrainingMemory:
    """Weights, gradients and optimiser state, those of the original, and saved activations times the batch."""
    tuning = bench.work.finetuning
    copies = 4 if tuning.optimizer == "adamw" else 3
    teacher = 4 * bench.analysis.params if _lessons(bench) else 0
    weights, activations = step.weights_bytes * copies + teacher, step.saved_bytes * tuning.batch_size
    return TrainingMemory(
        batch_size=tuning.batch_size,
        weights_bytes=weights,
        activations_bytes=activations,
        runtime_bytes=_RUNTIME_BYTES,
        total_bytes=weights + activations + _RUNTIME_BYTES,
        how=f"weights of the cut model times {copies} ({tuning.optimizer})"
        f"{' and of the original, its teacher' if teacher else ''}; tensors that a backward pass keeps, "
        f"counted on {step.images} images and scaled to the batch; an allowance for CUDA",
    )


def _step(bench: Workbench, cut: onnx.ModelProto) -> tuple[StepCost | None, tuple[str, ...]]:
    from worker.engine.recovery.step_cost import measure_step

    try:
        return measure_step(cut, bench.order.device, bench.work.seed), ()
    except EngineError as error:
        return None, (f"Neither training time nor memory is forecast: {error.message}",)


def _seconds_per_image(model: onnx.ModelProto, threads: int) -> float:
    """Of the shorter of two runs on a small batch."""
    session, inputs = cpu_session(model, threads), sample_inputs(model, 0, _BATCH)
    images = next((len(value) for value in inputs.values() if value.ndim), 1)
    session.run(None, inputs)
    return min(_timed(lambda: session.run(None, inputs))[1] for _ in range(2)) / max(images, 1)


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def _verdict(name: str, goal: float, value: float, reason: str) -> BudgetVerdict:
    verdict = "met" if value <= goal else "unreachable" if reason else "missed"
    return BudgetVerdict.model_validate(
        {"name": name, "goal": goal, "value": value, "verdict": verdict, "reason": reason}
    )


STAGE = Stage("forecast", Forecasted, run)
