"""How a job's events move its stages: pure functions over `Stage` documents."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from models_store.documents.event import ESTIMATE_STAGES, MASK_STAGES, STAGES, SWEEP_STAGES, EventType
from models_store.documents.job import Stage, StageChange, StageProgress, StageState
from models_store.documents.job_spec import JobKind

_NAMES: Mapping[str, tuple[str, ...]] = {
    JobKind.INSPECT: ("inspect",),
    JobKind.PRUNE: STAGES,
    JobKind.ESTIMATE: ESTIMATE_STAGES,
    JobKind.SWEEP: SWEEP_STAGES,
    JobKind.MASKS: MASK_STAGES,
}
_ENDED = (StageState.DONE, StageState.SKIPPED, StageState.FAILED, StageState.CANCELLED)
_COMPLETE = (StageState.DONE, StageState.SKIPPED)


def initial(kind: str) -> list[Stage]:
    """All stages of a kind of job, pending."""
    return [Stage(name=name) for name in _NAMES[kind]]


def load(rows: Iterable[Mapping[str, Any]]) -> list[Stage]:
    """What another release wrote beside the fields of this one is left out."""
    return [Stage.model_validate({key: row[key] for key in Stage.model_fields if key in row}) for row in rows]


def reconciled(rows: Iterable[Mapping[str, Any]], kind: str) -> list[Stage]:
    """The stages as this release has them, of a job whose rows another release may have left: those that both have stay
    as they are, those that only the other one has are dropped, and those that it did not have are pending."""
    stored = load(rows)
    if kind not in _NAMES:  # a kind that only the other one has: this one cannot run it, whatever its stages
        return stored
    known = {stage.name: stage for stage in stored}
    return [known.get(stage.name, stage) for stage in initial(kind)]


def dump(stages: Iterable[Stage]) -> list[dict[str, Any]]:
    return [stage.model_dump(mode="json") for stage in stages]


def progress(stages: Sequence[Stage]) -> float:
    """Progress of the job, 0..1: the mean over its stages."""
    return sum(1.0 if stage.state in _COMPLETE else stage.progress for stage in stages) / len(stages)


def apply(stages: Sequence[Stage], type: EventType, data: Mapping[str, Any], at: datetime) -> list[Stage]:
    """The stages after a `stage` or `progress` event; other events leave them as they are.

    Raises `ValueError` for data of another form, and for a stage that this kind of job does not have.
    """
    if type is EventType.STAGE:
        change = StageChange.model_validate(data)
        return _with(
            stages, change.name, {"state": change.state, "message": change.message, **_times(change.state, at)}
        )
    if type is EventType.PROGRESS:
        made = StageProgress.model_validate(data)
        return _with(stages, made.stage, {"progress": made.progress, "eta_s": made.eta_s})
    return list(stages)


def ended(stages: Sequence[Stage], state: StageState, at: datetime, message: str | None = None) -> list[Stage]:
    """The stages of a job that ended: the running one ends in `state`, those never begun were skipped."""
    result = []
    for stage in stages:
        if stage.state is StageState.RUNNING:
            stage = _changed(stage, {"state": state, "message": message or stage.message, **_times(state, at)})
        elif stage.state is StageState.PENDING and state is StageState.DONE:
            stage = _changed(stage, {"state": StageState.SKIPPED})
        result.append(stage)
    return result


def _with(stages: Sequence[Stage], name: str, change: Mapping[str, Any]) -> list[Stage]:
    if name not in [stage.name for stage in stages]:
        raise ValueError(f"unknown stage {name!r}: this job has {', '.join(stage.name for stage in stages)}")
    return [_changed(stage, change) if stage.name == name else stage for stage in stages]


def _times(state: StageState, at: datetime) -> dict[str, Any]:
    if state is StageState.RUNNING:
        return {"started_at": at, "finished_at": None, "progress": 0.0, "eta_s": None}
    if state is StageState.DONE:
        return {"finished_at": at, "progress": 1.0, "eta_s": None}
    return {"finished_at": at, "eta_s": None} if state in _ENDED else {}


def _changed(stage: Stage, change: Mapping[str, Any]) -> Stage:
    return Stage.model_validate({**stage.model_dump(), **change})
