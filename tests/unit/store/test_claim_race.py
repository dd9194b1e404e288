"""Many workers, threads and processes, claim at once: every job is claimed exactly once."""

import multiprocessing
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.queues import SimpleQueue

from models_store.database import Database
from models_store.documents.event import EventType
from models_store.documents.job_spec import JobKind
from models_store.jobs import JobRepository
from models_store.projects import DEFAULT_PROJECT

JOBS = 60
THREADS = 8
PROCESSES = 3


def claim_until_none(database: Database, worker: str) -> list[tuple[str, int]]:
    """What this worker claimed, each in a transaction of its own; with skipped locks, none may be a moment early."""
    claimed = []
    while True:
        with database.session() as session:
            claim = JobRepository(session).claim(worker)
        if claim is not None:
            claimed.append((claim.job_id, claim.attempt))
        else:
            with database.session(read_only=True) as session:
                if JobRepository(session).queued_count() == 0:
                    return claimed


def create(jobs) -> list[str]:
    return [jobs.create(JobKind.PRUNE, {}).id for _ in range(JOBS)]


def assert_each_once(jobs, created: list[str], claimed: list[tuple[str, int]]) -> None:
    assert Counter(claimed) == Counter((job_id, 1) for job_id in created)
    for job_id in created:
        assert [event.data["state"] for event in jobs.events(job_id)] == ["queued", "running"]


def test_threads(jobs, database):
    created = create(jobs)
    gate = threading.Barrier(THREADS)

    def work(number: int) -> list[tuple[str, int]]:
        gate.wait()
        return claim_until_none(database, f"thread {number}")

    with ThreadPoolExecutor(THREADS) as pool:
        claimed = [claim for claims in pool.map(work, range(THREADS)) for claim in claims]
    assert_each_once(jobs, created, claimed)


def test_forked_processes_that_inherit_the_database(jobs, database):
    """Also shows that a forked child opens connections of its own: on shared ones, the answers would be mixed up."""
    created = create(jobs)
    context = multiprocessing.get_context("fork")
    answers: SimpleQueue[list[tuple[str, int]]] = context.SimpleQueue()
    gate = context.Barrier(PROCESSES)

    def work(number: int) -> None:
        gate.wait()
        answers.put(claim_until_none(database, f"process {number}"))

    processes = [context.Process(target=work, args=(number,)) for number in range(PROCESSES)]
    for process in processes:
        process.start()
    claimed = [claim for _ in processes for claim in answers.get()]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    assert_each_once(jobs, created, claimed)


def test_a_claim_does_not_wait_for_another(postgresql_url):
    """On PostgreSQL a row that another worker is just claiming is skipped; SQLite has one writer at a time anyhow."""
    database = Database(postgresql_url)
    with database.of_project(DEFAULT_PROJECT).session() as session:
        created = [JobRepository(session).create(JobKind.PRUNE, {}).id for _ in range(2)]
    with database.session() as one, database.session() as other:
        claims = [JobRepository(one).claim("one"), JobRepository(other).claim("other"), JobRepository(other).claim("x")]
        assert [claim and claim.job_id for claim in claims] == [*created, None]
    database.dispose()


def test_one_expired_lease_is_reaped_once(jobs, database):
    job_id = jobs.create(JobKind.PRUNE, {}).id
    jobs.claim("lost", -1.0)
    gate = threading.Barrier(THREADS)

    def reap(_number: int) -> list[str]:
        gate.wait()
        with database.session() as session:
            return list(JobRepository(session).reap_expired())

    with ThreadPoolExecutor(THREADS) as pool:
        assert [reaped for each in pool.map(reap, range(THREADS)) for reaped in each] == [job_id]
    assert jobs.get(job_id).failed_attempts == 1


def test_one_ending_wins(jobs, database):
    """Success, cancellation by a user and the reaper race for one job; it ends once."""
    for _ in range(10):
        job_id = jobs.create(JobKind.PRUNE, {}).id
        claim = jobs.claim("worker", -1.0)
        gate = threading.Barrier(3)

        def run(action, gate=gate) -> BaseException | None:
            gate.wait()
            try:
                with database.session() as session:
                    action(JobRepository(session))
            except Exception as error:
                return error
            return None

        actions = [
            lambda repository, claim=claim: repository.succeed(claim, {"version": 1}),
            lambda repository, job_id=job_id: repository.request_cancel(job_id),
            lambda repository: repository.reap_expired(),
        ]
        with ThreadPoolExecutor(3) as pool:
            succeeded, cancelled, reaped = pool.map(run, actions)
        assert (cancelled, reaped) == (None, None)
        states = [event.data["state"] for event in jobs.events(job_id)]
        assert states in (
            ["queued", "running", "succeeded"],
            ["queued", "running", "cancelling", "succeeded"],
            ["queued", "running", "cancelling", "cancelled"],
            ["queued", "running", "queued", "cancelled"],
            ["queued", "running", "queued"],
        )
        assert (succeeded is None) == (states[-1] == "succeeded") == (jobs.report(job_id) is not None)
        jobs.request_cancel(job_id)


def test_events_of_concurrent_writers_stay_in_order(jobs, database):
    """A claim shared by two threads (as a worker's heartbeat and its event writer) numbers its events without gaps."""
    job_id = jobs.create(JobKind.PRUNE, {}).id
    claim = jobs.claim("worker")

    def write(number: int) -> None:
        for _ in range(5):
            with database.session() as session:
                JobRepository(session).append_events(claim, [(EventType.LOG, {"message": str(number)})] * 3)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    events = jobs.events(job_id)
    assert [event.seq for event in events] == list(range(1, 63))
    assert [event.at for event in events] == sorted(event.at for event in events)
    written = [event.data["message"] for event in events if event.type == EventType.LOG]
    assert all(len(set(written[start : start + 3])) == 1 for start in range(0, 60, 3))
