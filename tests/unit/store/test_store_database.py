"""Transactions and the database's clock."""

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import bindparam, func, select, text, update
from sqlalchemy.exc import DBAPIError, StatementError

import models_store
from models_store.database import Database
from models_store.database_time import UtcDateTime, database_now
from models_store.documents.job_spec import JobKind
from models_store.models import ModelRepository
from models_store.projects import DEFAULT_PROJECT
from models_store.tables import Job, Model


@pytest.fixture
def database(database):
    """New rows have to belong to somebody."""
    return database.of_project(DEFAULT_PROJECT)


def add(session, name="m"):
    return ModelRepository(session).add(name, "onnx", "0" * 64, 1, "key")


def count(database):
    with database.session(read_only=True) as session:
        return session.scalar(select(func.count()).select_from(Model))


def test_a_new_file_that_another_process_writes_to_is_waited_for(tmp_path):
    """As when service and workers start at the same moment: only one of them can make it a file with a log."""
    path = tmp_path / "new.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    other.execute("CREATE TABLE other (id)")
    threading.Timer(0.5, other.commit).start()
    database = Database(f"sqlite:///{path}")
    with database.session(read_only=True) as session:
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"
    database.dispose()
    other.close()


class TestSession:
    def test_commits_at_the_end(self, database):
        with database.session() as session:
            model = add(session)
            assert count(database) == 0
        assert count(database) == 1
        assert model.name == "m"

    def test_rolls_back_when_the_block_raises(self, database):
        def fail():
            with database.session() as session:
                add(session)
                raise KeyError("a mistake in the block")

        with pytest.raises(KeyError):
            fail()
        assert count(database) == 0

    def test_a_reader_cannot_write(self, database):
        def write():
            with database.session(read_only=True) as session:
                add(session)

        with pytest.raises(DBAPIError, match=r"(?i)read.?only"):
            write()
        assert count(database) == 0
        with database.session() as session:  # nor does its connection stay read-only
            add(session)

    def test_a_reader_does_not_wait_for_a_writer(self, database):
        with database.session() as session:
            add(session)
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(count, database).result(timeout=10) == 0

    def test_no_update_is_lost(self, database):
        """Read, add one, write: writers on SQLite begin with BEGIN IMMEDIATE, so none fails halfway."""
        with database.session() as session:
            model = add(session)
        gate = threading.Barrier(4)

        def increment(_number):
            gate.wait()
            for _ in range(10):
                with database.session() as session:
                    row = session.get(Model, model.id, with_for_update=True)
                    row.size_bytes += 1

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(increment, range(4)))
        with database.session(read_only=True) as session:
            assert session.get(Model, model.id).size_bytes == 41

    def test_what_one_commits_another_sees_at_once(self, database):
        other = Database(database.url.render_as_string(hide_password=False))
        with database.session() as session:
            add(session)
        assert count(other) == 1
        other.dispose()


class TestClock:
    def test_now(self, database):
        with database.session(read_only=True) as session:
            now, later = session.execute(select(database_now(), database_now(90.5))).one()
        assert now.tzinfo is UTC
        assert abs(datetime.now(UTC) - now) < timedelta(seconds=5)
        assert abs(later - now - timedelta(seconds=90.5)) < timedelta(seconds=1)

    @pytest.mark.parametrize(("offset_s", "past"), [(-0.01, True), (3600, False)])
    def test_comparison_with_what_was_stored(self, database, jobs, offset_s, past):
        jobs.create(JobKind.PRUNE, {})
        with database.session() as session:
            session.execute(update(Job).values(claimable_at=database_now(offset_s)))
        assert jobs.queued_count() == int(past)

    def test_a_time_comes_back_as_it_went(self, database):
        moment = datetime(2026, 11, 20, 12, 0, 0, 123456, tzinfo=UTC)
        with database.session(read_only=True) as session:
            for wall in (moment, moment.astimezone(datetime.now().astimezone().tzinfo)):
                assert session.scalar(select(bindparam("t", wall, UtcDateTime()))) == moment

    def test_a_time_without_zone_is_refused(self, database):
        with database.session(read_only=True) as session, pytest.raises(StatementError, match="time zone"):
            session.scalar(select(bindparam("t", datetime(2026, 11, 20), UtcDateTime())))


class TestUrl:
    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("sqlite://", "needs a file"),
            ("sqlite:///:memory:", "needs a file"),
            ("mysql://x/y", "must begin with"),
            ("postgresql+asyncpg://x/y", "must begin with"),
            ("espalier.db", "not a database URL"),
        ],
    )
    def test_others_are_refused(self, url, message):
        with pytest.raises(ValueError, match=message):
            Database(url)

    def test_the_folder_of_a_new_file_is_made(self, tmp_path):
        database = Database(f"sqlite:///{tmp_path}/a/b/espalier.db")
        database.upgrade()
        database.check()
        database.dispose()


def test_an_installed_package_carries_its_migrations(tmp_path: Path):
    """In a wheel they lie in `models_store/migrations` (pyproject.toml), and `site-packages/alembic` is Alembic."""
    package = Path(models_store.__file__).parent
    shutil.copytree(package, tmp_path / "site" / "models_store", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(package.parent / "alembic", tmp_path / "site" / "models_store" / "migrations")
    program = (
        "import sys, models_store; from models_store.database import Database; print(models_store.__file__)\n"
        "database = Database(sys.argv[1]); database.upgrade(); database.check()"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    result = subprocess.run(
        [sys.executable, "-c", program, f"sqlite:///{tmp_path}/x.db"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.startswith(str(tmp_path))
