"""A session of one project sees and writes what belongs to the project, whatever the statement."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Table, delete, exists, func, insert, select, text, union, update
from sqlalchemy.orm import Session, aliased

from models_store.confinement import Unconfined, owner
from models_store.database import Database
from models_store.documents.event import EventType
from models_store.documents.job_spec import JobKind
from models_store.errors import NotFound
from models_store.jobs import JobRepository
from models_store.models import ModelRepository
from models_store.projects import DEFAULT_PROJECT, ProjectRepository
from models_store.tables import Base, Job, JobEvent, Model, Project, WebhookAttempt
from models_store.webhooks import Outcome, WebhookRepository

Other = aliased(Job)


@pytest.fixture
def two(database: Database) -> dict[str, str]:
    """Ids by name of two projects, each with a model, a job with an event and a delivery with an attempt."""
    with database.session() as session:
        ids = {DEFAULT_PROJECT: "mine", ProjectRepository(session).add("theirs").id: "theirs"}
    for project_id, name in ids.items():
        with database.of_project(project_id).session() as session:
            model = ModelRepository(session).add(name, "onnx", "0" * 64, 1, "key")
            JobRepository(session).create(JobKind.PRUNE, {}, model_id=model.id, label=name)
            webhooks = WebhookRepository(session)
            endpoint = webhooks.add(f"https://{name}.example", (), "")
            webhooks.tell_one(endpoint, "webhook.test", webhooks.now(), {})
    with database.session() as session:
        webhooks = WebhookRepository(session)
        for _ in ids:
            webhooks.record(webhooks.claim(), Outcome(1, 200))
    return {name: id for id, name in ids.items()}


READS: dict[str, Callable[[Session], Any]] = {
    "rows": lambda s: s.scalars(select(Job.label)).all(),
    "entities": lambda s: [job.label for job in s.scalars(select(Job))],
    "alias": lambda s: s.scalars(select(Other.label)).all(),
    "a cast": lambda s: s.scalars(select(func.upper(Job.label) + "").execution_options(x=1)).all(),
    "subquery": lambda s: s.scalars(select(select(Job.label).subquery().c.label)).all(),
    "in": lambda s: s.scalars(select(Job.label).where(Job.id.in_(select(JobEvent.job_id)))).all(),
    "join": lambda s: s.scalars(select(Job.label).join(JobEvent, JobEvent.job_id == Job.id)).all(),
    "outer join": lambda s: s.scalars(select(Job.label).outerjoin(Model, Model.name != Job.label)).all(),
    "union": lambda s: s.scalars(union(select(Job.label), select(Job.label).where(Job.label == "theirs"))).all(),
    "update": lambda s: s.scalars(update(Job).values(progress=0.5).returning(Job.label)).all(),
    "update by subquery": lambda s: s.scalars(
        update(Job)
        .where(Job.id == select(Other.id).order_by(Other.label.desc()).limit(1).scalar_subquery())
        .values(progress=0.5)
        .returning(Job.label)
    ).all(),
    "delete": lambda s: s.scalars(delete(Job).returning(Job.label)).all(),
}


def test_a_statement_sees_rows_of_the_project_only(database: Database, two: dict[str, str]) -> None:
    for how, read in READS.items():
        for name, project_id in two.items():
            with database.of_project(project_id).session() as session, session.begin_nested() as savepoint:
                assert [label.lower() for label in read(session)] == [name], how
                savepoint.rollback()


def test_every_table_is_confined(database: Database, two: dict[str, str]) -> None:
    counts = {mapper.class_: select(func.count()).select_from(mapper.class_) for mapper in Base.registry.mappers}
    with database.session() as session:
        everything = {kind: session.scalar(count) for kind, count in counts.items()}
    for project_id in two.values():
        with database.of_project(project_id).session(read_only=True) as session:
            mine = {kind: session.scalar(count) for kind, count in counts.items()}
        assert mine == {kind: count // 2 for kind, count in everything.items()}
    assert sum(count > 0 for count in everything.values()) == 7


def test_parts_of_parts_are_confined(database: Database, two: dict[str, str]) -> None:
    with database.session() as session:
        assert len(session.scalars(select(WebhookAttempt)).all()) == 2
    with database.of_project(two["mine"]).session() as session:
        (attempt,) = session.scalars(select(WebhookAttempt)).all()
        foreign = session.get(WebhookAttempt, (attempt.delivery_id, attempt.number))
        assert foreign is attempt
    with database.of_project(two["theirs"]).session() as session:
        assert session.get(WebhookAttempt, (attempt.delivery_id, attempt.number)) is None


def test_rows_are_found_by_id_in_their_project_only(database: Database, two: dict[str, str]) -> None:
    with database.of_project(two["mine"]).session() as session:
        (job,) = JobRepository(session).list()
    with database.of_project(two["theirs"]).session() as session:
        jobs = JobRepository(session)
        assert jobs.get(job.id) is None
        assert jobs.events(job.id) == []
        assert jobs.request_cancel(job.id) is None
        assert session.get(JobEvent, (job.id, 1)) is None
        assert session.get(Project, two["mine"]) is None
        with pytest.raises(NotFound):
            jobs.create(JobKind.PRUNE, {}, model_id=job.model_id)


def test_new_rows_are_the_projects(database: Database, two: dict[str, str]) -> None:
    with database.of_project(two["theirs"]).session() as session:
        assert ModelRepository(session).add("n", "onnx", "0" * 64, 1, "key").project_id == two["theirs"]
    model = Model(id="mdl_x", name="n", format="onnx", sha256="", size_bytes=1, blob_key="", details={})
    model.project_id = two["mine"]
    with pytest.raises(Unconfined), database.of_project(two["theirs"]).session() as session:
        session.add(model)


def test_without_a_project_a_job_is_that_of_its_inputs(database: Database, two: dict[str, str]) -> None:
    with database.session() as session:
        models = session.scalars(select(Model)).all()
        for model in models:
            job = JobRepository(session).create(JobKind.PRUNE, {}, model_id=model.id)
            assert job.project_id == model.project_id


ESCAPES = {
    "text": text("SELECT label FROM jobs"),
    "a table": select(Job.__table__),
    "from text": select(Job).from_statement(text("SELECT * FROM jobs")),
    "a condition as text": select(Job.id).where(text("1 = 1")),
    "exists": select(exists().where(Job.label == "theirs")),
    "insert": insert(JobEvent).values(job_id="job_x", seq=1, type=EventType.LOG, attempt=1, data={}),
}


def test_what_could_escape_is_refused(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    for how, statement in ESCAPES.items():
        with database.of_project(DEFAULT_PROJECT).session() as session:
            try:
                session.execute(statement)
            except Unconfined:
                continue
        pytest.fail(f"{how} was not refused")
    database.dispose()


def test_a_table_of_nobody_is_named() -> None:
    for table in Base.metadata.sorted_tables:
        owner(table)
    with pytest.raises(LookupError, match="derive its class from Owned"):
        owner(Table("loose", type(Base.metadata)()))
