"""Ended jobs that are tried again, and who is next in line."""

from espalier.client import Client
from models_store.checkpoints import CheckpointRepository
from models_store.documents.event import EventType
from models_store.documents.job_spec import JobKind
from models_store.jobs import JobRepository
from models_store.projects import ProjectRepository
from tests.api.answers import problem
from tests.api.running_api import Service
from tests.api.store_side import BAD_MODEL


def checkpoint(service: Service, job_id: str) -> dict[str, str]:
    with service.database.session(read_only=True) as session:
        return CheckpointRepository(session).files(job_id)


def keep_checkpoint(service: Service, job_id: str) -> None:
    with service.database.session() as session:
        CheckpointRepository(session).keep(job_id, 1, {"state/baseline.json": "key"})


def test_a_failed_job_goes_on_after_what_it_had_finished(service: Service) -> None:
    job_id = service.start_job()
    claim = service.worker.claim()
    keep_checkpoint(service, job_id)
    service.worker.fail(claim)
    job = service.http.post(f"/v1/jobs/{job_id}/retry").json()
    assert (job["state"], job["error"], job["finished_at"], job["attempt"]) == ("queued", None, None, 1)
    assert {stage["state"] for stage in job["stages"]} == {"pending"}
    assert checkpoint(service, job_id) != {}
    again = service.worker.claim()
    assert (again.job_id, again.attempt) == (job_id, 2)
    service.worker.succeed(again)
    problem(service.http.post(f"/v1/jobs/{job_id}/retry"), 409, "nothing_to_retry")
    with Client(service.url) as client:
        states = [event.data["state"] for event in client.events(job_id) if event.type is EventType.STATE]
    assert states == ["queued", "running", "failed", "queued", "running", "succeeded"]


def test_a_retry_has_all_attempts_before_it_and_may_begin_afresh(sqlite_service: Service) -> None:
    job_id = sqlite_service.start_job()
    for _ in range(2):
        with sqlite_service.database.session() as session:
            JobRepository(session).fail(sqlite_service.worker.claim(), BAD_MODEL)
        keep_checkpoint(sqlite_service, job_id)
        answer = sqlite_service.http.post(f"/v1/jobs/{job_id}/retry", json={"begin": "start"})
        assert answer.status_code == 202, answer.text
        assert checkpoint(sqlite_service, job_id) == {}
    with sqlite_service.database.session(read_only=True) as session:
        job = JobRepository(session).get(job_id)
    assert job is not None
    assert (job.failed_attempts, job.attempt) == (0, 2)


def test_a_retry_is_sent_twice_and_happens_once(sqlite_service: Service) -> None:
    job_id = sqlite_service.start_job()
    sqlite_service.http.post(f"/v1/jobs/{job_id}/cancel")
    key = {"Idempotency-Key": "again"}
    answers = [sqlite_service.http.post(f"/v1/jobs/{job_id}/retry", headers=key) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    events = sqlite_service.http.get(f"/v1/jobs/{job_id}").json()
    assert events["state"] == "queued"
    problem(sqlite_service.http.post(f"/v1/jobs/{job_id}/retry"), 409, "nothing_to_retry")


def test_what_cannot_be_tried_again_says_what_to_do_instead(sqlite_service: Service) -> None:
    http = sqlite_service.http
    model_id = sqlite_service.upload_model()
    sqlite_service.worker.inspect(reject=True)
    inspection = http.get("/v1/jobs", params={"kind": "inspect"}).json()["items"][0]["id"]
    problem(http.post(f"/v1/jobs/{inspection}/retry"), 409, "nothing_to_retry")
    job_id = sqlite_service.start_job()
    http.post(f"/v1/jobs/{job_id}/cancel")
    http.delete(f"/v1/models/{http.get(f'/v1/jobs/{job_id}').json()['model_id']}").raise_for_status()
    problem(http.post(f"/v1/jobs/{job_id}/retry"), 409, "input_gone")
    problem(http.post(f"/v1/jobs/job_{0:032x}/retry"), 404, "job_not_found")
    assert model_id


def test_priorities_decide_who_is_next(service: Service) -> None:
    model_id = service.ready_model()
    ids = {}
    for priority in ("low", "normal", "high"):
        body = {"model_id": model_id, "budget": {"macs_ratio": 0.5}, "priority": priority}
        ids[service.http.post("/v1/jobs", json=body).raise_for_status().json()["id"]] = priority
    assert [ids[service.worker.claim().job_id] for _ in ids] == ["high", "normal", "low"]


def test_projects_take_turns(service: Service) -> None:
    """A project with many jobs in line does not keep another one waiting."""
    with service.database.session() as session:
        projects = [ProjectRepository(session).add(name).id for name in ("busy", "small")]
    ids: dict[str, str] = {}
    for project_id, count in zip(projects, (4, 2), strict=True):
        with service.database.of_project(project_id).session() as session:
            for _ in range(count):
                ids[JobRepository(session).create(JobKind.PRUNE, {}).id] = project_id
    busy, small = projects
    turns = [ids[service.worker.claim().job_id] for _ in ids]
    assert turns == [busy, small, busy, small, busy, busy]


def test_many_inspections_of_a_project_hold_up_nobody(service: Service) -> None:
    """One of them goes first; the others wait like jobs of normal priority, while it is at work."""
    with service.database.session() as session:
        projects = [ProjectRepository(session).add(name).id for name in ("busy", "small")]
    ids: dict[str, str] = {}
    for project_id, kinds in zip(projects, ([JobKind.INSPECT] * 3, [JobKind.PRUNE]), strict=True):
        with service.database.of_project(project_id).session() as session:
            for kind in kinds:
                ids[JobRepository(session).create(kind, {}).id] = project_id
    busy, small = projects
    assert [ids[service.worker.claim().job_id] for _ in ids] == [busy, small, busy, busy]
