"""iterate: the rounds of a schedule before the last: score, cut, recover and finetune, each from what the one before
left. The stages behind this one are the last round."""

from __future__ import annotations

import shutil
import time
from typing import Any

from models_store.documents.base import Document
from models_store.documents.job_spec import JobSpec
from models_store.documents.report import RoundRow
from models_store.documents.schedule import Schedule
from worker.engine.graph import load_model
from worker.engine.measure import latency
from worker.runner.accuracy import accuracy
from worker.runner.interruption import Stopped
from worker.runner.stages import baseline, estimate, finetune, prune, recover
from worker.runner.workbench import Stage, Workbench

_STAGES: tuple[Stage[Any], ...] = (estimate.STAGE, prune.STAGE, recover.STAGE, finetune.STAGE)
_LATENCY_ROUNDS = 7


class Iterated(Document):
    """One row per round."""

    rounds: tuple[RoundRow, ...]


def run(bench: Workbench) -> Iterated:
    schedule = bench.spec.schedule
    if schedule is None:
        raise ValueError("the job asks for no schedule")
    rounds = range(1, schedule.steps)
    for step in rounds:
        if bench.round_row_path(step).exists():  # by an earlier attempt
            continue
        with bench.voice.share((step - 1) / len(rounds), step / len(rounds)):
            row = _round(bench, schedule, step)
        bench.round_row_path(step).write_text(row.model_dump_json())
        bench.checkpoint()
        bench.voice.log(f"round {step} of {schedule.steps} left {row.macs_ratio:.1%} of the MACs")
    return Iterated(rounds=tuple(bench.round_row(step) for step in rounds))


def _round(bench: Workbench, schedule: Schedule, step: int) -> RoundRow:
    """The stages of one round, as far as no earlier attempt ran them; the model is left at its path."""
    start = time.monotonic()
    inner = bench.in_round(step, _spec(bench.spec, schedule, step))
    for number, stage in enumerate(_STAGES):
        if stage.reason_to_skip(inner) is not None or inner.has(stage):
            continue
        with bench.voice.share(number / len(_STAGES), (number + 1) / len(_STAGES)):
            inner.write(stage, stage.run(inner))
        bench.checkpoint()
        if inner.interruption.told_to_stop():
            raise Stopped
    row = _row(bench, inner, step, time.monotonic() - start)
    shutil.copyfile(inner.best_path, bench.round_path(step))
    for path in inner.own_files():
        path.unlink()
    if step > 1:
        bench.round_path(step - 1).unlink(missing_ok=True)
    return row


def _spec(spec: JobSpec, schedule: Schedule, step: int) -> JobSpec:
    """What is asked of one round: a budget on the way, and channels alone."""
    from worker.engine.recovery.schedules import ratio_after

    lines = ("macs_ratio", "params_ratio", "latency_ratio")
    goals = {name: goal for name in lines if (goal := getattr(spec.budget, name)) is not None}
    on_the_way = {name: ratio_after(goal, step, schedule.steps, schedule.path) for name, goal in goals.items()}
    return spec.model_copy(
        update={
            "budget": spec.budget.model_copy(update={**on_the_way, "max_accuracy_drop": None}),
            "finetuning": spec.finetuning.model_copy(update={"epochs": schedule.epochs}),
            "kernels": None,
            "schedule": None,
        }
    )


def _row(bench: Workbench, inner: Workbench, step: int, seconds: float) -> RoundRow:
    whole, cut = bench.read(baseline.STAGE).cost, inner.read(prune.STAGE)
    trained = inner.read_if_run(finetune.STAGE)
    labelled = bench.dataset is not None and bench.dataset.labelled
    budget, fast = inner.spec.budget, None
    if budget.bounds_latency:
        batch, threads = (budget.latency_batch_size,), budget.latency_threads
        pruned = load_model(inner.best_path)
        (fast,) = latency(bench.original, pruned, batch, threads, _LATENCY_ROUNDS, bench.spec.seed)
    return RoundRow(
        step=step,
        budget=budget,
        macs=cut.cost.macs,
        params=cut.cost.params,
        macs_ratio=cut.cost.macs / max(whole.macs, 1),
        params_ratio=cut.cost.params / max(whole.params, 1),
        latency_ratio=1 / fast.speedup if fast is not None else None,
        proof=cut.proof,
        top1_after_cut=accuracy(inner, inner.cut_path)[0].top1 if labelled else None,
        top1=accuracy(inner, inner.best_path)[0].top1 if labelled else None,
        training=trained.training if trained is not None else None,
        seconds=seconds,
    )


def reason_to_skip(bench: Workbench) -> str | None:
    return "The job asks for one cut." if bench.spec.schedule is None else None


STAGE = Stage("iterate", Iterated, run, reason_to_skip)
