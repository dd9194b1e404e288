"""However an inspection ends, its model or dataset does not stay `inspecting`."""

import pytest

from models_store.database import Database
from models_store.documents.event import ErrorClass, JobError
from models_store.documents.inspection import Rejection
from models_store.documents.job import JobState
from models_store.documents.job_spec import JobKind
from models_store.errors import InUse
from models_store.jobs import MAX_ATTEMPTS, JobRepository
from models_store.models import ModelRepository
from models_store.tables import InputState

ERROR = JobError(code="bad_model", error_class=ErrorClass.USER, message="It is a text file.", hint="Export it again.")
EXPIRED = -1.0


@pytest.fixture(params=["model", "dataset"])
def repository(request, models, datasets):
    return models if request.param == "model" else datasets


@pytest.fixture
def upload(repository, jobs):
    """A model or a dataset and, as uploads make it, its inspection."""
    row = repository.add("x", "onnx", "0" * 64, 1, "key")
    jobs.create(JobKind.INSPECT, {}, **{"model_id" if row.id.startswith("mdl_") else "dataset_id": row.id})
    return row


def fail(jobs, _job_id):
    jobs.fail(jobs.claim("worker"), ERROR)


def cancel_while_queued(jobs, job_id):
    jobs.request_cancel(job_id)


def cancel_while_running(jobs, job_id):
    claim = jobs.claim("worker")
    jobs.request_cancel(job_id)
    jobs.cancelled(claim)


def drain_while_cancelling(jobs, job_id):
    claim = jobs.claim("worker")
    jobs.request_cancel(job_id)
    jobs.release(claim)


def lose_every_worker(jobs, _job_id):
    for _ in range(MAX_ATTEMPTS):
        jobs.claim("worker", EXPIRED)
        jobs.reap_expired()


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (fail, "bad_model"),
        (cancel_while_queued, "inspection_cancelled"),
        (cancel_while_running, "inspection_cancelled"),
        (drain_while_cancelling, "inspection_cancelled"),
        (lose_every_worker, "worker_lost"),
    ],
)
def test_an_inspection_that_does_not_succeed_rejects(jobs, repository, upload, end, code):
    job_id = jobs.list(kind=JobKind.INSPECT)[0].id
    end(jobs, job_id)
    row = repository.get(upload.id)
    assert row.state is InputState.REJECTED
    rejection = Rejection.model_validate(row.rejection)
    assert rejection.code == code
    assert rejection.message
    assert rejection.hint


def test_a_retry_does_not_reject(jobs, repository, upload):
    jobs.fail(jobs.claim("worker"), ERROR, retry=True)
    assert repository.get(upload.id).state is InputState.INSPECTING


def test_the_worker_s_own_rejection_stands(jobs, repository, upload):
    own = Rejection(code="unknown_domain", message="No.", hint="Export it again.", node="Conv_7").model_dump()
    claim = jobs.claim("worker")
    assert repository.mark_rejected(upload.id, own)
    jobs.fail(claim, ERROR)
    assert repository.get(upload.id).rejection == own
    assert not repository.mark_rejected(upload.id, {})


def test_ready_and_succeeded_in_one_transaction(jobs, models, database: Database):
    model = models.add("m", "onnx", "0" * 64, 1, "key")
    job = jobs.create(JobKind.INSPECT, {}, model_id=model.id)
    claim = jobs.claim("worker")
    with database.session() as session:
        JobRepository(session).hold(claim)
        assert ModelRepository(session).mark_ready(model.id, {"nodes": 3}, "canonical")
        JobRepository(session).succeed(claim)
    model = models.get(model.id)
    assert (model.state, model.inspection, model.onnx_key) == (InputState.READY, {"nodes": 3}, "canonical")
    assert jobs.get(job.id).state is JobState.SUCCEEDED
    assert not models.mark_rejected(model.id, {})


def test_success_without_a_verdict_is_refused(jobs, repository, upload):
    claim = jobs.claim("worker")
    with pytest.raises(ValueError, match="mark its input"):
        jobs.succeed(claim)
    assert repository.get(upload.id).state is InputState.INSPECTING
    assert jobs.get(claim.job_id).state is JobState.RUNNING


def test_inputs_in_use_are_not_deleted(jobs, repository, upload):
    with pytest.raises(InUse, match="cancel that job first"):
        repository.delete(upload.id)
    jobs.request_cancel(jobs.list(kind=JobKind.INSPECT)[0].id)
    assert repository.delete(upload.id)
    assert repository.get(upload.id) is None
    assert not repository.delete(upload.id)
    job = jobs.list(kind=JobKind.INSPECT)[0]
    assert (job.model_id, job.dataset_id) == (None, None)


def test_pages_of_inputs(repository):
    ids = [repository.add(str(n), "onnx", "0" * 64, 1, "key").id for n in range(5)][::-1]
    repository.mark_rejected(ids[1], {})
    assert [row.id for row in repository.list()] == ids
    assert [row.id for row in repository.list(after=ids[1], limit=2)] == ids[2:4]
    assert [row.id for row in repository.list(state=InputState.REJECTED)] == [ids[1]]
