"""Random histories of users, workers and the sweeper; after every step, what must always be true of a job is."""

from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule
from sqlalchemy import select, update

from models_store.database import Database
from models_store.database_time import database_now
from models_store.documents.event import ErrorClass, EventType, JobError
from models_store.documents.job import JobState
from models_store.documents.job_spec import JobKind
from models_store.errors import LeaseLost
from models_store.jobs import HELD, MAX_ATTEMPTS, Claim, JobRepository
from models_store.models import ModelRepository
from models_store.projects import DEFAULT_PROJECT
from models_store.tables import InputState, Job

ERROR = JobError(code="x", error_class=ErrorClass.INFRASTRUCTURE, message="x")
WORKERS = st.sampled_from(["ada", "bob"])
ALLOWED = {
    "queued": {"running", "cancelled"},
    "running": {"queued", "cancelling", "succeeded", "failed"},
    "cancelling": {"succeeded", "failed", "cancelled"},
    "succeeded": set(),
    "failed": set(),
    "cancelled": set(),
}


class JobHistories(RuleBasedStateMachine):
    """Claims are kept after they are lost, and used: the fence has to hold."""

    created = Bundle("created")
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.database = Database(f"sqlite:///{Path(self.folder.name) / 'espalier.db'}")
        self.database.upgrade()
        self.owner: dict[str, Claim] = {}  # by job: who may write, as this test counts it

    def teardown(self) -> None:
        self.database.dispose()
        self.folder.cleanup()

    def do(self, method: str, *arguments: object, **keywords: object):
        with self.database.of_project(DEFAULT_PROJECT).session() as session:
            return getattr(JobRepository(session), method)(*arguments, **keywords)

    def write(self, claim: Claim, method: str, *arguments: object) -> bool:
        """A worker writes; it must be refused exactly when the job is not its own."""
        try:
            self.do(method, claim, *arguments)
        except LeaseLost:
            assert self.owner.get(claim.job_id) != claim
            return False
        assert self.owner.get(claim.job_id) == claim
        return True

    def finish(self, claim: Claim, method: str, *arguments: object) -> None:
        if self.write(claim, method, *arguments):
            del self.owner[claim.job_id]

    @rule(target=created, inspect=st.booleans())
    def create(self, inspect: bool) -> str:
        if not inspect:
            return self.do("create", JobKind.PRUNE, {}).id
        with self.database.of_project(DEFAULT_PROJECT).session() as session:
            model = ModelRepository(session).add("m", "onnx", "0" * 64, 1, "key")
            return JobRepository(session).create(JobKind.INSPECT, {}, model_id=model.id).id

    @rule(target=claims, worker=WORKERS, lease_s=st.sampled_from([-1.0, 3600.0]))
    def claim(self, worker: str, lease_s: float):
        claim = self.do("claim", worker, lease_s)
        if claim is None:
            assert self.do("queued_count") == 0
            return multiple()
        assert claim.job_id not in self.owner
        self.owner[claim.job_id] = claim
        return claim

    @rule(job_id=created)
    def request_cancel(self, job_id: str) -> None:
        self.do("request_cancel", job_id)

    @rule(claim=claims)
    def heartbeat(self, claim: Claim) -> None:
        self.write(claim, "heartbeat", 3600.0)

    @rule(claim=claims, count=st.integers(0, 3))
    def append_events(self, claim: Claim, count: int) -> None:
        self.write(claim, "append_events", [(EventType.LOG, {"message": "x"})] * count)

    @rule(claim=claims)
    def succeed(self, claim: Claim) -> None:
        if claim.kind == JobKind.PRUNE:
            self.finish(claim, "succeed")

    @rule(claim=claims, retry=st.booleans())
    def fail(self, claim: Claim, retry: bool) -> None:
        self.finish(claim, "fail", ERROR, retry)

    @rule(claim=claims)
    def release(self, claim: Claim) -> None:
        self.finish(claim, "release")

    @rule(claim=consumes(claims))
    def forget(self, claim: Claim) -> None:
        """The worker is gone for good."""

    @rule()
    def reap(self) -> None:
        for job_id in self.do("reap_expired"):
            del self.owner[job_id]

    @rule()
    def wait(self) -> None:
        with self.database.session() as session:
            session.execute(update(Job).values(claimable_at=database_now(-1)))

    @invariant()
    def every_job_is_sound(self) -> None:
        with self.database.session(read_only=True) as session:
            jobs = JobRepository(session)
            for job in session.scalars(select(Job)):
                assert (job.state in HELD) == (job.id in self.owner) == (job.lease_expires_at is not None)
                assert job.state.ended == (job.finished_at is not None)
                assert job.failed_attempts <= min(MAX_ATTEMPTS, job.attempt)
                events = jobs.events(job.id)
                assert [event.seq for event in events] == list(range(1, job.event_seq + 1))
                states = [event.data["state"] for event in events if event.type == EventType.STATE]
                assert (states[0], states[-1]) == ("queued", job.state)
                assert all(after in ALLOWED[before] for before, after in pairwise(states))
                if job.model_id is not None:
                    model = ModelRepository(session).get(job.model_id)
                    assert model is not None
                    assert (model.state is InputState.REJECTED) == (job.state in (JobState.FAILED, JobState.CANCELLED))


TestJobHistories = JobHistories.TestCase
TestJobHistories.settings = settings(
    max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
