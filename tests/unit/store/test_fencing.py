"""A worker that lost its lease writes nothing, whatever it tries."""

from dataclasses import replace

import pytest
from sqlalchemy import select

from models_store.documents.event import ErrorClass, EventType, JobError
from models_store.documents.job_spec import JobKind
from models_store.errors import LeaseLost
from models_store.jobs import JobRepository, NewArtifact
from models_store.models import ModelRepository
from models_store.tables import Base

ERROR = JobError(code="x", error_class=ErrorClass.USER, message="x")
EXPIRED = -1.0

WRITES = {
    "heartbeat": (),
    "hold": (),
    "append_events": ([(EventType.LOG, {"message": "still here"})],),
    "succeed": ({"version": 1}, [NewArtifact("m.onnx", "application/onnx", 7, "0" * 64, "key")]),
    "fail": (ERROR,),
    "cancelled": (),
    "release": (),
}


def everything(database):
    with database.session(read_only=True) as session:
        return {name: session.execute(select(table)).all() for name, table in Base.metadata.tables.items()}


def reaped(jobs, _claim):
    jobs.reap_expired()


def taken_by_another(jobs, _claim):
    jobs.reap_expired()
    assert jobs.claim("other").attempt == 2


def taken_by_the_same_worker(jobs, claim):
    jobs.reap_expired()
    assert jobs.claim(claim.worker).attempt == 2


def taken_and_to_be_cancelled(jobs, claim):
    taken_by_another(jobs, claim)
    jobs.request_cancel(claim.job_id)


def finished_by_another(jobs, claim):
    jobs.reap_expired()
    jobs.succeed(jobs.claim("other"))


def released(jobs, claim):
    jobs.release(claim)


def ended(jobs, claim):
    jobs.fail(claim, ERROR)


def retried(jobs, claim):
    jobs.fail(claim, ERROR, retry=True)


@pytest.mark.parametrize(
    "lose",
    [
        reaped,
        taken_by_another,
        taken_by_the_same_worker,
        taken_and_to_be_cancelled,
        finished_by_another,
        released,
        ended,
        retried,
    ],
)
def test_a_stale_worker_writes_nothing(jobs, database, lose):
    jobs.create(JobKind.PRUNE, {})
    claim = jobs.claim("worker", EXPIRED)
    lose(jobs, claim)
    before = everything(database)
    for write, arguments in WRITES.items():
        with pytest.raises(LeaseLost, match=f"attempt 1 of {claim.job_id} is no longer worker's"):
            getattr(jobs, write)(claim, *arguments)
        assert everything(database) == before, write


def test_a_claim_under_another_name_writes_nothing(jobs, database):
    jobs.create(JobKind.PRUNE, {})
    claim = replace(jobs.claim("worker"), worker="impostor")
    before = everything(database)
    for write, arguments in WRITES.items():
        with pytest.raises(LeaseLost):
            getattr(jobs, write)(claim, *arguments)
    assert everything(database) == before


@pytest.mark.parametrize("write", WRITES)
def test_a_late_worker_that_nobody_replaced_goes_on(jobs, database, write):
    """Its lease is over, yet nobody took the job: the work is not thrown away. (The control of the test above.)"""
    job = jobs.create(JobKind.PRUNE, {})
    claim = jobs.claim("worker", EXPIRED)
    if write == "cancelled":
        jobs.request_cancel(job.id)
    before = everything(database)
    getattr(jobs, write)(claim, *WRITES[write])
    assert (everything(database) == before) == (write == "hold")


def test_a_stale_verdict_is_rolled_back_with_its_transaction(jobs, models, database):

    model = models.add("m", "onnx", "0" * 64, 1, "key")
    jobs.create(JobKind.INSPECT, {}, model_id=model.id)
    claim = jobs.claim("worker", EXPIRED)
    taken_by_another(jobs, claim)
    before = everything(database)

    def conclude():
        with database.session() as session:
            assert ModelRepository(session).mark_ready(model.id, {}, "key")
            JobRepository(session).succeed(claim)

    with pytest.raises(LeaseLost):
        conclude()
    assert everything(database) == before
