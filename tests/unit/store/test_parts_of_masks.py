"""Parts of a job's random masks in the store: the job waits for them without a worker, and is cancelled with them."""

from __future__ import annotations

import pytest

from models_store.database import Database
from models_store.datasets import DatasetRepository
from models_store.documents.event import ErrorClass, EventType, JobError
from models_store.documents.job import JobState
from models_store.documents.job_spec import JobKind, JobSpec, SweepSpec
from models_store.documents.mask_part import MaskPart, MaskParts, MaskScores
from models_store.jobs import Claim, JobRepository
from models_store.models import ModelRepository
from models_store.projects import DEFAULT_PROJECT
from models_store.quotas import QuotaRepository
from models_store.tables import Job

PARTS = MaskParts(
    stage="estimate",
    parts=tuple(
        MaskPart(granularity="feature_map", draws="0" * 64, first=first, last=first + 2) for first in (2, 4, 6)
    ),
)
BROKEN = JobError(code="broken", error_class=ErrorClass.USER, message="It broke.", hint="Mend it.")


@pytest.fixture
def inputs(database: Database) -> dict[str, str]:
    with database.of_project(DEFAULT_PROJECT).session() as session:
        model = ModelRepository(session).add("m", "onnx", "0" * 64, 1, "sha256/00/" + "0" * 64)
        dataset = DatasetRepository(session).add("d", "npz", "0" * 64, 1, "sha256/00/" + "0" * 64)
        return {"model_id": model.id, "dataset_id": dataset.id}


@pytest.fixture
def job_id(database: Database, inputs: dict[str, str]) -> str:
    """A job that waits for its parts."""
    id = submitted(database, inputs)
    spread(database, claimed(database))
    return id


def submitted(database: Database, inputs: dict[str, str]) -> str:
    spec = JobSpec.model_validate({**inputs, "budget": {"macs_ratio": 0.5}, "random_masks": {}, "priority": "high"})
    with database.session() as session:
        created = JobRepository(session).create(
            JobKind.PRUNE, spec.model_dump(mode="json"), spec.model_id, spec.dataset_id, 77, priority=spec.priority
        )
        return created.id


def claimed(database: Database) -> Claim:
    found = claim(database)
    assert found is not None
    return found


def claim(database: Database) -> Claim | None:
    with database.session() as session:
        return JobRepository(session).claim("a test")


def spread(database: Database, claim: Claim) -> None:
    with database.session() as session:
        jobs = JobRepository(session)
        jobs.append_events(claim, [(EventType.STAGE, {"name": "estimate", "state": "running"})])
        jobs.spread(claim, PARTS)


def job(database: Database, id: str) -> Job:
    with database.session(read_only=True) as session:
        found = JobRepository(session).get(id)
    assert found is not None
    return found


def parts(database: Database, job_id: str) -> list[Job]:
    with database.session(read_only=True) as session:
        return list(reversed(JobRepository(session).list(parent_id=job_id, kind=JobKind.MASKS)))


def scores(claim: Claim) -> MaskScores:
    part = MaskPart.model_validate(claim.spec)
    return MaskScores(part=part, wrong=(part.first, 0), samples=9, seconds=0.5)


def end(database: Database, claim: Claim, *, well: bool = True) -> None:
    with database.session() as session:
        jobs = JobRepository(session)
        if well:
            jobs.succeed(claim, scores(claim).model_dump(mode="json"))
        else:
            jobs.fail(claim, BROKEN)


def test_parts_are_claimed_before_what_is_as_urgent_and_the_job_after_the_last(
    database: Database, inputs: dict[str, str], job_id: str
) -> None:
    other = submitted(database, inputs)
    waiting = job(database, job_id)
    assert (waiting.state, waiting.worker, waiting.failed_attempts) == (JobState.QUEUED, None, 0)
    assert waiting.used_s >= 0
    assert [part.deadline_s for part in parts(database, job_id)] == [77] * 3
    claims = [claimed(database) for _ in PARTS.parts]
    assert [MaskPart.model_validate(each.spec) for each in claims] == list(PARTS.parts)
    assert claimed(database).job_id == other
    assert claim(database) is None
    for number, each in enumerate(claims):
        assert job(database, job_id).state is JobState.QUEUED
        end(database, each, well=number != 1)
        (stage,) = [s for s in job(database, job_id).stages if s["name"] == "estimate"]
        assert stage["progress"] == pytest.approx((number + 1) / 3)
    again = claimed(database)
    assert (again.job_id, again.attempt) == (job_id, 2)
    with database.session(read_only=True) as session:
        asked_for, found = JobRepository(session).mask_parts(job_id)
    assert tuple(asked_for) == PARTS.parts
    assert list(found) == [scores(claims[0]), scores(claims[2])]


def test_a_cancelled_job_takes_its_parts_with_it(database: Database, job_id: str) -> None:
    running = claimed(database)
    with database.session() as session:
        JobRepository(session).request_cancel(job_id)
    assert job(database, job_id).state is JobState.CANCELLED
    assert [part.state for part in parts(database, job_id)] == ["cancelling", "cancelled", "cancelled"]
    with database.session() as session:
        JobRepository(session).cancelled(running)
    assert claim(database) is None


def test_a_cancelled_sweep_takes_the_parts_of_its_points_with_it(database: Database, inputs: dict[str, str]) -> None:
    budgets = [{"macs_ratio": 0.5}, {"macs_ratio": 0.4}]
    spec = SweepSpec.model_validate({"kind": "sweep", **inputs, "budgets": budgets, "random_masks": {}})
    with database.session() as session:
        sweep_id = JobRepository(session).create_sweep(spec).id
    point = claimed(database)
    spread(database, point)
    with database.session() as session:
        JobRepository(session).request_cancel(sweep_id)
    assert [part.state for part in parts(database, point.job_id)] == [JobState.CANCELLED] * 3
    assert claim(database) is None


def test_a_job_that_was_to_be_cancelled_asks_nobody(database: Database, inputs: dict[str, str]) -> None:
    id = submitted(database, inputs)
    taken = claimed(database)
    with database.session() as session:
        JobRepository(session).request_cancel(id)
    spread(database, taken)
    assert job(database, id).state is JobState.CANCELLED
    assert parts(database, id) == []


@pytest.mark.parametrize("afresh", [False, True])
def test_a_retried_job_waits_for_the_parts_that_are_tried_again(
    database: Database, job_id: str, *, afresh: bool
) -> None:
    end(database, claimed(database))
    with database.session() as session:
        JobRepository(session).request_cancel(job_id)
    with database.session() as session:
        JobRepository(session).retry(job_id, afresh=afresh)
    if afresh:
        assert parts(database, job_id) == []
        assert claimed(database).job_id == job_id
        return
    assert [part.state for part in parts(database, job_id)] == ["succeeded", "queued", "queued"]
    for _ in range(2):
        end(database, claimed(database))
    assert claimed(database).job_id == job_id


def test_a_retried_job_whose_parts_have_all_succeeded_waits_for_none(database: Database, job_id: str) -> None:
    for _ in PARTS.parts:
        end(database, claimed(database))
    end(database, claimed(database), well=False)
    assert job(database, job_id).state is JobState.FAILED
    with database.session() as session:
        JobRepository(session).retry(job_id, afresh=False)
    assert claimed(database).job_id == job_id


def test_parts_are_not_listed_nor_counted_among_a_projects_jobs(database: Database, job_id: str) -> None:
    with database.of_project(DEFAULT_PROJECT).session(read_only=True) as session:
        assert [each.id for each in JobRepository(session).list()] == [job_id]
        assert QuotaRepository(session).usage().unfinished_jobs == 1
