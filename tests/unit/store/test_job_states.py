"""The job state machine, transition by transition, on both databases."""

import pytest
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError, StatementError

from models_store.database import Database
from models_store.database_time import database_now
from models_store.documents.event import STAGES, ErrorClass, EventType, JobError
from models_store.documents.job import JobState, StageState
from models_store.documents.job_spec import JobKind
from models_store.errors import LeaseLost, NotFound
from models_store.jobs import MAX_ATTEMPTS, Claim, JobRepository, NewArtifact
from models_store.tables import Job

ERROR = JobError(code="out_of_memory", error_class=ErrorClass.RESOURCES, message="It did not fit.", stage="finetune")
ENDED = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
EXPIRED = -1.0  # a lease that is over when it begins


def history(jobs, job_id):
    return [event.data["state"] for event in jobs.events(job_id) if event.type == EventType.STATE]


def stages(jobs, job_id):
    return {stage["name"]: StageState(stage["state"]) for stage in jobs.get(job_id).stages}


def bring_to(jobs, state):
    """A job in this state; running ones are held by `worker`."""
    job = jobs.create(JobKind.PRUNE, {})
    if state is JobState.CANCELLED:
        return jobs.request_cancel(job.id)
    if state is not JobState.QUEUED:
        claim = jobs.claim("worker")
        if state is JobState.CANCELLING:
            jobs.request_cancel(job.id)
        elif state is JobState.SUCCEEDED:
            jobs.succeed(claim)
        elif state is JobState.FAILED:
            jobs.fail(claim, ERROR)
    return jobs.get(job.id)


def skip_the_wait(database: Database) -> None:
    with database.session() as session:
        session.execute(update(Job).values(claimable_at=database_now(-1)))


class TestCreate:
    def test_a_new_job_is_queued_with_all_its_stages_pending(self, jobs):
        job = jobs.create(JobKind.PRUNE, {"seed": 3}, deadline_s=60, label="nightly")
        job = jobs.get(job.id)
        assert job.state is JobState.QUEUED
        assert (job.spec, job.deadline_s, job.label, job.attempt) == ({"seed": 3}, 60, "nightly", 0)
        assert stages(jobs, job.id) == dict.fromkeys(STAGES, StageState.PENDING)
        assert [(event.seq, event.type, event.at) for event in jobs.events(job.id)] == [
            (1, EventType.STATE, job.created_at)
        ]

    @pytest.mark.parametrize("reference", ["model_id", "dataset_id"])
    def test_a_job_needs_inputs_that_exist(self, jobs, reference):
        with pytest.raises(NotFound, match="there is no xyz_0"):
            jobs.create(JobKind.PRUNE, {}, **{reference: "xyz_0"})
        assert jobs.queued_count() == 0

    def test_nan_is_refused_by_both_databases(self, jobs):
        with pytest.raises((ValueError, StatementError), match="not JSON compliant"):
            jobs.create(JobKind.PRUNE, {"learning_rate": float("nan")})

    def test_words_of_strangers_are_kept_as_they_are(self, jobs):
        spec = {"exclude": ["a\x00b", "\ud800", "\u202e", "'; DROP TABLE jobs; --"]}
        assert jobs.get(jobs.create(JobKind.PRUNE, spec).id).spec == spec


class TestClaim:
    def test_nothing_to_claim(self, jobs):
        assert jobs.claim("worker") is None

    def test_inspections_first_and_then_the_oldest(self, jobs):
        first, second = (jobs.create(JobKind.PRUNE, {}).id for _ in range(2))
        inspection = jobs.create(JobKind.INSPECT, {}).id
        assert [jobs.claim("worker").job_id for _ in range(3)] == [inspection, first, second]
        assert jobs.claim("worker") is None

    def test_a_claim_carries_the_order(self, jobs, models, datasets):
        model = models.add("m", "onnx", "0" * 64, 1, "key")
        dataset = datasets.add("d", "npz", "0" * 64, 1, "key")
        job = jobs.create(JobKind.PRUNE, {"seed": 1}, model.id, dataset.id, deadline_s=99)
        claim = jobs.claim("worker")
        assert (claim.job_id, claim.attempt, claim.worker, claim.kind) == (job.id, 1, "worker", JobKind.PRUNE)
        assert (claim.spec, claim.model_id, claim.dataset_id) == ({"seed": 1}, model.id, dataset.id)
        assert claim.deadline_s == 99
        job = jobs.get(job.id)
        assert job.state is JobState.RUNNING
        assert (job.lease_expires_at - job.started_at).total_seconds() == pytest.approx(60, abs=1)

    def test_a_claim_that_is_rolled_back_never_was(self, jobs, database):
        job = jobs.create(JobKind.PRUNE, {})
        with database.session() as session:
            assert JobRepository(session).claim("doomed").attempt == 1
            session.rollback()
        assert jobs.get(job.id).state is JobState.QUEUED
        assert jobs.claim("worker").attempt == 1

    def test_a_held_job_has_a_lease_and_no_other_has(self, jobs, database):
        """A check of the database's own, whatever the code does."""
        jobs.create(JobKind.PRUNE, {})
        with pytest.raises(IntegrityError), database.session() as session:
            session.execute(update(Job).values(state=JobState.RUNNING))


class TestEvents:
    def test_events_move_stages_and_progress(self, jobs):
        job_id = jobs.create(JobKind.PRUNE, {}).id
        claim = jobs.claim("worker")
        jobs.append_events(
            claim,
            [
                (EventType.STAGE, {"name": "baseline", "state": "running"}),
                (EventType.PROGRESS, {"stage": "baseline", "progress": 0.5, "eta_s": 4}),
                (EventType.LOG, {"level": "info", "message": "half"}),
            ],
        )
        job = jobs.get(job_id)
        assert job.progress == 0.5 / len(STAGES)
        assert (job.stages[0]["state"], job.stages[0]["eta_s"]) == ("running", 4)
        jobs.append_events(claim, [(EventType.STAGE, {"name": "baseline", "state": "done", "message": "91 %"})])
        job = jobs.get(job_id)
        assert job.progress == 1 / len(STAGES)
        assert (job.stages[0]["state"], job.stages[0]["message"]) == ("done", "91 %")
        assert job.stages[0]["started_at"] <= job.stages[0]["finished_at"]

    def test_numbers_have_no_gaps_over_attempts_and_failed_writes(self, jobs):
        job_id = jobs.create(JobKind.PRUNE, {}).id
        for _ in range(MAX_ATTEMPTS):
            claim = jobs.claim("worker", EXPIRED)
            jobs.append_events(claim, [(EventType.LOG, {"message": str(number)}) for number in range(5)])
            with pytest.raises(ValueError, match="unknown stage"):
                jobs.append_events(claim, [(EventType.LOG, {}), (EventType.PROGRESS, {"stage": "x", "progress": 0})])
            jobs.reap_expired()
        events = jobs.events(job_id)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert len(events) == 1 + MAX_ATTEMPTS * 7
        assert [event.at for event in events] == sorted(event.at for event in events)
        assert [event.attempt for event in events] == [0] + [1] * 7 + [2] * 7 + [3] * 7

    def test_a_page_of_events(self, jobs):
        job_id = jobs.create(JobKind.PRUNE, {}).id
        jobs.append_events(jobs.claim("worker"), [(EventType.LOG, {"message": str(n)}) for n in range(10)])
        assert [event.seq for event in jobs.events(job_id, after_seq=4, limit=3)] == [5, 6, 7]
        assert jobs.events(job_id, after_seq=12) == []

    @pytest.mark.parametrize(
        ("type", "data"),
        [
            (EventType.STATE, {"state": "succeeded"}),
            (EventType.STAGE, {"name": "baking", "state": "running"}),
            (EventType.STAGE, {"name": "prune", "state": "cancelled"}),
            (EventType.STAGE, {"state": "running"}),
            (EventType.PROGRESS, {"stage": "prune", "progress": 1.5}),
            (EventType.PROGRESS, {"stage": "prune", "progress": float("nan")}),
        ],
    )
    def test_events_of_no_known_form_are_refused(self, jobs, type, data):
        job_id = jobs.create(JobKind.PRUNE, {}).id
        claim = jobs.claim("worker")
        with pytest.raises(ValueError, match=r"state events|unknown stage|StageChange|StageProgress"):
            jobs.append_events(claim, [(type, data)])
        assert len(jobs.events(job_id)) == 2


def leave_stages(database: Database, job_id: str, rows: list[dict[str, object]]) -> None:
    """As another release would have written them."""
    with database.session() as session:
        session.execute(update(Job).where(Job.id == job_id).values(stages=rows))


class TestStagesOfAnotherRelease:
    ROWS = (
        {"name": "baseline", "state": "pending", "progress": 0.0},  # with less in it than now
        {"name": "prune", "state": "pending", "progress": 0.0, "colour": "blue"},  # with more
        {"name": "tune", "state": "pending", "progress": 0.0},  # called finetune since
    )

    def test_a_claim_gives_the_job_the_stages_of_this_release(self, jobs, database):
        job_id = jobs.create(JobKind.PRUNE, {}).id
        leave_stages(database, job_id, list(self.ROWS))
        claim = jobs.claim("worker")
        assert stages(jobs, job_id) == dict.fromkeys(STAGES, StageState.PENDING)
        change = {"name": "finetune", "state": "running"}
        jobs.append_events(
            claim, [(EventType.STAGE, change), (EventType.PROGRESS, {"stage": "finetune", "progress": 1})]
        )
        assert stages(jobs, job_id)["finetune"] is StageState.RUNNING
        assert jobs.get(job_id).progress == 1 / len(STAGES)

    def test_what_is_not_claimed_any_more_ends_with_the_stages_that_it_had(self, jobs, database):
        job_id = jobs.create(JobKind.PRUNE, {}).id
        leave_stages(database, job_id, list(self.ROWS))
        assert jobs.request_cancel(job_id).state is JobState.CANCELLED
        assert stages(jobs, job_id).keys() == {"baseline", "prune", "tune"}

    def test_a_kind_that_this_release_does_not_know_is_left_as_it_is(self, jobs, database):
        job_id = jobs.create(JobKind.PRUNE, {}).id
        with database.session() as session:
            session.execute(update(Job).where(Job.id == job_id).values(kind="quantise"))
        leave_stages(database, job_id, list(self.ROWS))
        assert jobs.claim("worker").kind == "quantise"
        assert stages(jobs, job_id).keys() == {"baseline", "prune", "tune"}


class TestEndings:
    def test_success_shows_report_and_artifacts(self, jobs):
        job_id = jobs.create(JobKind.PRUNE, {}).id
        claim = jobs.claim("worker")
        jobs.append_events(claim, [(EventType.STAGE, {"name": "report", "state": "running"})])
        assert (jobs.report(job_id), jobs.artifacts(job_id)) == (None, [])
        jobs.succeed(claim, {"version": 1}, [NewArtifact("m.onnx", "application/onnx", 7, "0" * 64, "key")])
        job = jobs.get(job_id)
        assert (job.state, job.progress, job.lease_expires_at) == (JobState.SUCCEEDED, 1.0, None)
        assert job.finished_at >= job.started_at
        assert stages(jobs, job_id)["report"] is StageState.DONE
        assert stages(jobs, job_id)["finetune"] is StageState.SKIPPED
        assert jobs.report(job_id) == {"version": 1}
        assert [artifact.name for artifact in jobs.artifacts(job_id)] == ["m.onnx"]
        assert jobs.artifact(job_id, "m.onnx").size_bytes == 7
        assert jobs.artifact(job_id, "other") is None
        assert history(jobs, job_id) == ["queued", "running", "succeeded"]

    def test_failure_names_the_stage_and_the_reason(self, jobs):
        job_id = jobs.create(JobKind.PRUNE, {}).id
        claim = jobs.claim("worker")
        jobs.append_events(claim, [(EventType.STAGE, {"name": "finetune", "state": "running"})])
        jobs.fail(claim, ERROR)
        job = jobs.get(job_id)
        assert job.state is JobState.FAILED
        assert JobError.model_validate(job.error) == ERROR
        assert stages(jobs, job_id)["finetune"] is StageState.FAILED
        assert stages(jobs, job_id)["report"] is StageState.PENDING
        assert jobs.events(job_id)[-1].data["error"]["code"] == "out_of_memory"

    def test_a_retry_waits_and_the_last_attempt_fails(self, jobs, database):
        job_id = jobs.create(JobKind.PRUNE, {}).id
        for attempt in range(1, MAX_ATTEMPTS):
            jobs.fail(jobs.claim("worker"), ERROR, retry=True)
            job = jobs.get(job_id)
            assert (job.state, job.attempt, job.error, job.worker) == (JobState.QUEUED, attempt, None, None)
            assert jobs.claim("worker") is None
            assert jobs.queued_count() == 0
            skip_the_wait(database)
            assert jobs.queued_count() == 1
        jobs.fail(jobs.claim("worker"), ERROR, retry=True)
        assert jobs.get(job_id).state is JobState.FAILED
        assert jobs.get(job_id).error["code"] == "out_of_memory"
        assert history(jobs, job_id) == ["queued", "running"] * MAX_ATTEMPTS + ["failed"]

    def test_a_drained_worker_spends_no_attempt(self, jobs):
        job_id = jobs.create(JobKind.PRUNE, {}).id
        for attempt in range(1, 2 * MAX_ATTEMPTS):
            claim = jobs.claim("worker")
            assert claim.attempt == attempt
            jobs.append_events(claim, [(EventType.STAGE, {"name": "baseline", "state": "done"})])
            jobs.release(claim)
            assert stages(jobs, job_id)["baseline"] is StageState.PENDING
        assert (jobs.get(job_id).state, jobs.get(job_id).failed_attempts) == (JobState.QUEUED, 0)


class TestCancel:
    def test_queued_is_cancelled_at_once(self, jobs):
        job = bring_to(jobs, JobState.CANCELLED)
        assert (job.state, job.finished_at is None) == (JobState.CANCELLED, False)
        assert jobs.claim("worker") is None
        assert history(jobs, job.id) == ["queued", "cancelled"]

    def test_running_is_asked_and_learns_it_by_heartbeat(self, jobs):
        job_id = jobs.create(JobKind.PRUNE, {}).id
        claim = jobs.claim("worker")
        jobs.append_events(claim, [(EventType.STAGE, {"name": "finetune", "state": "running"})])
        assert not jobs.heartbeat(claim).cancel_requested
        assert jobs.request_cancel(job_id).state is JobState.CANCELLING
        assert jobs.heartbeat(claim).cancel_requested
        jobs.cancelled(claim)
        assert jobs.get(job_id).state is JobState.CANCELLED
        assert stages(jobs, job_id)["finetune"] is StageState.CANCELLED
        assert history(jobs, job_id) == ["queued", "running", "cancelling", "cancelled"]

    @pytest.mark.parametrize("state", [JobState.CANCELLING, *ENDED])
    def test_asking_again_changes_nothing(self, jobs, state):
        job = bring_to(jobs, state)
        before = jobs.events(job.id)
        assert jobs.request_cancel(job.id).state is state
        assert len(jobs.events(job.id)) == len(before)

    def test_an_unknown_job(self, jobs):
        assert jobs.request_cancel("job_0") is None

    @pytest.mark.parametrize(
        ("ending", "arguments", "state"),
        [
            ("succeed", (), JobState.SUCCEEDED),
            ("fail", (ERROR,), JobState.FAILED),
            ("fail", (ERROR, True), JobState.CANCELLED),
            ("cancelled", (), JobState.CANCELLED),
            ("release", (), JobState.CANCELLED),
        ],
    )
    def test_how_a_cancelling_job_ends(self, jobs, ending, arguments, state):
        job_id = jobs.create(JobKind.PRUNE, {}).id
        claim = jobs.claim("worker")
        jobs.request_cancel(job_id)
        getattr(jobs, ending)(claim, *arguments)
        assert jobs.get(job_id).state is state

    def test_a_worker_cannot_cancel_unasked(self, jobs):
        jobs.create(JobKind.PRUNE, {})
        claim = jobs.claim("worker")
        with pytest.raises(ValueError, match="nobody asked"):
            jobs.cancelled(claim)
        jobs.heartbeat(claim)


class TestReap:
    def test_a_live_lease_is_left_alone(self, jobs):
        jobs.create(JobKind.PRUNE, {})
        claim = jobs.claim("worker", EXPIRED)
        jobs.heartbeat(claim)
        assert jobs.reap_expired() == []
        jobs.succeed(claim)

    def test_lost_workers_spend_the_attempts(self, jobs):
        job_id = jobs.create(JobKind.PRUNE, {}).id
        for attempt in range(1, MAX_ATTEMPTS + 1):
            assert jobs.claim("worker", EXPIRED).attempt == attempt
            assert jobs.reap_expired() == [job_id]
        job = jobs.get(job_id)
        assert (job.state, job.error["code"]) == (JobState.FAILED, "worker_lost")
        assert jobs.claim("worker") is None
        assert jobs.reap_expired() == []
        assert history(jobs, job_id) == ["queued", "running"] * MAX_ATTEMPTS + ["failed"]

    def test_a_job_to_be_cancelled_is(self, jobs):
        job_id = jobs.create(JobKind.PRUNE, {}).id
        jobs.claim("worker", EXPIRED)
        jobs.request_cancel(job_id)
        assert jobs.reap_expired() == [job_id]
        assert jobs.get(job_id).state is JobState.CANCELLED

    def test_many_at_once(self, jobs):
        created = [jobs.create(JobKind.PRUNE, {}).id for _ in range(5)]
        for _ in created:
            jobs.claim("worker", EXPIRED)
        assert len(jobs.reap_expired(limit=3)) == 3
        assert len(jobs.reap_expired(limit=3)) == 2
        assert [jobs.claim("worker").job_id for _ in created] == created


def test_pages_of_jobs(jobs, models):
    model = models.add("m", "onnx", "0" * 64, 1, "key")
    created = [jobs.create(JobKind.PRUNE, {}, model_id=model.id if n % 2 else None, label=str(n)).id for n in range(5)]
    inspection = jobs.create(JobKind.INSPECT, {}, model_id=model.id).id
    newest_first = created[::-1]

    def ids(**filters):
        return [job.id for job in jobs.list(**filters)]

    assert ids() == newest_first
    assert ids(limit=2) == newest_first[:2]
    assert ids(limit=2, after=newest_first[1]) == newest_first[2:4]
    assert ids(after=newest_first[-1]) == []
    assert ids(kind=JobKind.INSPECT) == [inspection]
    assert ids(model_id=model.id) == [created[3], created[1]]
    assert ids(label="4") == [created[4]]
    jobs.request_cancel(created[2])
    assert ids(state=JobState.CANCELLED) == [created[2]]


def test_get_of_an_unknown_job(jobs):
    assert jobs.get("job_0") is None
    assert (jobs.events("job_0"), jobs.artifacts("job_0"), jobs.report("job_0")) == ([], [], None)
    with pytest.raises(LeaseLost):
        jobs.heartbeat(Claim("job_0", 1, "worker", "prune", {}, None, None, 1))
