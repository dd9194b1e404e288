"""A sweep in the store: it waits for its points without a worker, ends after the last, and is cancelled with them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import ValidationError
from sqlalchemy import select, update

from models_store.database import Database
from models_store.datasets import DatasetRepository
from models_store.documents.event import SWEEP_STAGES, ErrorClass, EventType, JobError
from models_store.documents.job import JobState
from models_store.documents.job_spec import NEW_JOB, JobSpec, SweepSpec
from models_store.errors import InUse, QuotaExceeded
from models_store.jobs import Claim, JobRepository
from models_store.models import ModelRepository
from models_store.projects import DEFAULT_PROJECT
from models_store.quotas import LIMITS, Limits
from models_store.tables import Job

BUDGETS = ({"macs_ratio": 0.7}, {"macs_ratio": 0.5}, {"latency_ratio": 0.5})
BROKEN = JobError(code="broken", error_class=ErrorClass.USER, message="It broke.", hint="Mend it.")


@pytest.fixture
def sweep_id(database: Database) -> str:
    with database.of_project(DEFAULT_PROJECT).session() as session:
        model = ModelRepository(session).add("m", "onnx", "0" * 64, 1, "sha256/00/" + "0" * 64)
        dataset = DatasetRepository(session).add("d", "npz", "0" * 64, 1, "sha256/00/" + "0" * 64)
        spec = SweepSpec.model_validate(
            {"kind": "sweep", "model_id": model.id, "dataset_id": dataset.id, "budgets": BUDGETS, "label": "front"}
        )
        return JobRepository(session).create_sweep(spec).id


def claim(database: Database) -> Claim | None:
    with database.session() as session:
        return JobRepository(session).claim("a test")


def job(database: Database, id: str) -> Job:
    with database.session(read_only=True) as session:
        found = JobRepository(session).get(id)
    assert found is not None
    return found


def delete(database: Database, id: str) -> bool:
    with database.of_project(DEFAULT_PROJECT).session() as session:
        return JobRepository(session).delete(id)


def states(database: Database, sweep_id: str) -> list[JobState]:
    with database.session(read_only=True) as session:
        return [point.state for point in JobRepository(session).points(sweep_id)]


def end(database: Database, claim: Claim | None, *, well: bool = True) -> None:
    assert claim is not None
    with database.session() as session:
        jobs = JobRepository(session)
        if well:
            jobs.succeed(claim)
        else:
            jobs.fail(claim, BROKEN)


def test_each_point_is_a_prune_job_of_its_own(database: Database, sweep_id: str) -> None:
    with database.session(read_only=True) as session:
        rows = JobRepository(session).list(parent_id=sweep_id)
    specs = [JobSpec.model_validate(row.spec) for row in reversed(rows)]
    assert [spec.budget.model_dump(exclude_unset=True) for spec in specs] != []
    assert [list(spec.budget.lines()) for spec in specs] == [["macs_ratio"], ["macs_ratio"], ["latency_ratio"]]
    assert {(row.kind, row.label, row.model_id is not None) for row in rows} == {("prune", "front", True)}


def test_no_worker_takes_the_sweep_before_its_last_point_has_ended(database: Database, sweep_id: str) -> None:
    claims = [claim(database) for _ in BUDGETS]
    assert [each.kind for each in claims if each] == ["prune"] * 3
    assert claim(database) is None
    for number, each in enumerate(claims):
        assert job(database, sweep_id).state is JobState.QUEUED
        end(database, each, well=number != 1)
        assert job(database, sweep_id).stages[0]["progress"] == pytest.approx((number + 1) / 3)
    last = claim(database)
    assert last is not None
    assert (last.job_id, last.kind) == (sweep_id, "sweep")
    assert [stage["state"] for stage in job(database, sweep_id).stages] == ["done", "pending"]
    with database.session(read_only=True) as session:
        events = JobRepository(session).events(sweep_id)
    logs = [event.data for event in events if event.type is EventType.LOG]
    assert [log["level"] for log in logs] == ["info", "warning", "info"]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    end(database, last)
    assert job(database, sweep_id).state is JobState.SUCCEEDED


def test_points_that_end_at_once_wake_the_sweep(database: Database, sweep_id: str) -> None:
    claims = [claim(database) for _ in BUDGETS]
    with ThreadPoolExecutor(len(claims)) as pool:
        list(pool.map(lambda each: end(database, each), claims))
    found = claim(database)
    assert found is not None
    assert found.job_id == sweep_id
    assert claim(database) is None


def test_with_a_sweep_its_points_are_cancelled(database: Database, sweep_id: str) -> None:
    running, done = claim(database), claim(database)
    end(database, done)
    with database.session() as session:
        cancelled = JobRepository(session).request_cancel(sweep_id)
    assert cancelled is not None
    assert job(database, sweep_id).state is JobState.CANCELLED
    assert states(database, sweep_id) == [JobState.CANCELLING, JobState.SUCCEEDED, JobState.CANCELLED]
    assert running is not None
    with database.session() as session:
        JobRepository(session).cancelled(running)
    assert claim(database) is None
    assert job(database, sweep_id).state is JobState.CANCELLED


def test_a_cancel_and_the_ends_of_points_do_not_block_each_other(database: Database, sweep_id: str) -> None:
    claims = [claim(database) for _ in BUDGETS]

    def cancel() -> None:
        with database.session() as session:
            JobRepository(session).request_cancel(sweep_id)

    with ThreadPoolExecutor(4) as pool:
        ended = [pool.submit(end, database, each) for each in claims]
        asked = pool.submit(cancel)
        for each in (*ended, asked):
            each.result(timeout=30)
    assert states(database, sweep_id) == [JobState.SUCCEEDED] * 3
    assert job(database, sweep_id).state in (JobState.CANCELLED, JobState.QUEUED)


def test_a_sweep_that_lost_its_worker_is_taken_again(database: Database, sweep_id: str) -> None:
    for _ in BUDGETS:
        end(database, claim(database))
    with database.session() as session:
        first = JobRepository(session).claim("dead", lease_s=-1)
    with database.session() as session:
        assert JobRepository(session).reap_expired() == [sweep_id]
    second = claim(database)
    assert first is not None
    assert second is not None
    assert (second.job_id, second.attempt) == (sweep_id, first.attempt + 1)


def test_a_sweep_that_is_tried_again_waits_for_its_points_again(database: Database, sweep_id: str) -> None:
    done = claim(database)
    end(database, done)
    with database.session() as session:
        JobRepository(session).request_cancel(sweep_id)
    with database.session() as session:
        assert JobRepository(session).retry(sweep_id, afresh=False) is not None
    assert states(database, sweep_id) == [JobState.SUCCEEDED, JobState.QUEUED, JobState.QUEUED]
    assert [stage["state"] for stage in job(database, sweep_id).stages] == ["running", "pending"]
    for _ in range(2):
        again = claim(database)
        assert again is not None
        assert again.kind == "prune"
        end(database, again)
    last = claim(database)
    assert last is not None
    assert last.job_id == sweep_id


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"dataset_id": None}, "a front is of accuracies"),
        ({"budgets": [{"macs_ratio": 0.5}]}, "at least 2"),
        ({"kernels": {"layout": "free"}, "recovery": {"reconstruction": True}}, "does not go with granularity"),
        ({"budget": {"macs_ratio": 0.5}}, "Extra inputs"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(change: dict[str, object], word: str) -> None:
    body = {"kind": "sweep", "model_id": f"mdl_{0:032x}", "dataset_id": f"dst_{0:032x}", "budgets": list(BUDGETS)}
    NEW_JOB.validate_python(body)
    with pytest.raises(ValidationError, match=word):
        NEW_JOB.validate_python({**body, **change})


def test_a_sweep_is_tried_again_where_there_is_room_for_all_of_it(database: Database, sweep_id: str) -> None:
    with database.session() as session:
        JobRepository(session).request_cancel(sweep_id)

    def retry(unfinished_jobs: int) -> None:
        known = {LIMITS: Limits(unfinished_jobs=unfinished_jobs)}
        with database.of_project(DEFAULT_PROJECT, **known).session() as session:
            JobRepository(session).retry(sweep_id, afresh=True)

    with pytest.raises(QuotaExceeded):
        retry(len(BUDGETS))
    assert set(states(database, sweep_id)) == {JobState.CANCELLED}
    retry(len(BUDGETS) + 1)
    assert set(states(database, sweep_id)) == {JobState.QUEUED}


def test_stages_of_another_release_do_not_keep_a_point_from_its_end(database: Database, sweep_id: str) -> None:
    rows = [{"name": "children", "state": "running", "progress": 0.0}, {"name": "front", "state": "pending"}]
    with database.session() as session:
        session.execute(update(Job).where(Job.id == sweep_id).values(stages=rows))
    for _ in BUDGETS:
        end(database, claim(database))
    assert states(database, sweep_id) == [JobState.SUCCEEDED] * 3
    assert [stage["name"] for stage in job(database, sweep_id).stages] == list(SWEEP_STAGES)
    assert job(database, sweep_id).stages[0]["state"] == "done"
    claimed = claim(database)
    assert claimed is not None
    assert claimed.job_id == sweep_id


def test_a_sweep_is_deleted_with_its_points_once_all_have_ended(database: Database, sweep_id: str) -> None:
    running = claim(database)
    assert running is not None
    with database.session() as session:
        JobRepository(session).request_cancel(sweep_id)
    with pytest.raises(InUse, match=f"{running.job_id}, which goes with {sweep_id}, is cancelling"):
        delete(database, sweep_id)
    with database.session() as session:
        JobRepository(session).cancelled(running)
    with pytest.raises(InUse, match=f"a part of {sweep_id}, which is cancelled"):
        delete(database, running.job_id)
    assert delete(database, sweep_id)
    with database.session(read_only=True) as session:
        assert session.scalars(select(Job.id)).all() == []
    assert not delete(database, sweep_id)


def test_a_point_goes_by_itself_once_its_sweep_has_succeeded(database: Database, sweep_id: str) -> None:
    claims = [claim(database) for _ in BUDGETS]
    for each in claims:
        end(database, each)
    point = claims[0]
    assert point is not None
    with pytest.raises(InUse, match=f"a part of {sweep_id}, which is queued"):
        delete(database, point.job_id)
    end(database, claim(database))
    assert delete(database, point.job_id)
    assert len(states(database, sweep_id)) == 2
    assert job(database, sweep_id).state is JobState.SUCCEEDED
