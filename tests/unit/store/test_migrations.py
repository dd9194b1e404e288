"""The migrations make the tables that the code declares, there and back again, on both databases."""

import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, inspect, select, text

from models_store.database import Database
from models_store.errors import DatabaseUnavailable, SchemaOutdated
from models_store.projects import DEFAULT_PROJECT
from models_store.tables import Base, Model


def _tables(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names()) - {"alembic_version"}


def _differences(engine: Engine) -> list[object]:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        return compare_metadata(context, Base.metadata)


def test_up_down_up(empty_database: Database) -> None:
    declared = set(Base.metadata.tables)
    empty_database.upgrade()
    assert _tables(empty_database.engine) == declared
    empty_database.downgrade("base")
    assert _tables(empty_database.engine) == set()
    empty_database.upgrade()
    assert _tables(empty_database.engine) == declared
    empty_database.check()


def test_migrated_tables_are_the_declared_ones(database: Database) -> None:
    assert _differences(database.engine) == []


def test_the_comparison_sees_a_difference(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE jobs DROP COLUMN label"))
    assert [difference[0] for difference in _differences(database.engine)] == ["add_column"]


def test_checks_are_the_declared_ones(empty_database: Database) -> None:
    """What `compare_metadata` leaves out."""

    def checks() -> dict[str, list[tuple[str | None, str]]]:
        found = inspect(empty_database.engine)
        return {
            table: sorted((check["name"], check["sqltext"]) for check in found.get_check_constraints(table))
            for table in Base.metadata.tables
        }

    Base.metadata.create_all(empty_database.engine)
    declared = checks()
    Base.metadata.drop_all(empty_database.engine)
    empty_database.upgrade()
    assert checks() == declared
    assert [name for name, _ in declared["jobs"]] == ["ck_jobs_lease", "ck_jobs_state"]


def test_what_was_there_before_projects_belongs_to_the_default_one(empty_database: Database) -> None:
    empty_database.upgrade("0006")
    model = "'mdl_x', 'net', 'onnx', 'ready', '', 1, 'key', '{}', CURRENT_TIMESTAMP"
    columns = "id, name, format, state, sha256, size_bytes, blob_key, details, created_at"
    with empty_database.engine.begin() as connection:
        connection.execute(text(f"INSERT INTO models ({columns}) VALUES ({model})"))  # noqa: S608
    empty_database.upgrade()
    with empty_database.of_project(DEFAULT_PROJECT).session(read_only=True) as session:
        assert [row.name for row in session.scalars(select(Model))] == ["net"]
    empty_database.downgrade("0006")
    with empty_database.engine.connect() as connection:
        assert connection.execute(text("SELECT name FROM models")).all() == [("net",)]


def test_several_processes_may_upgrade_at_once(empty_database: Database) -> None:
    url = empty_database.url.render_as_string(hide_password=False)
    failures: list[BaseException] = []
    gate = threading.Barrier(4)

    def upgrade() -> None:
        database = Database(url)
        gate.wait()
        try:
            database.upgrade()
        except Exception as error:
            failures.append(error)
        finally:
            database.dispose()

    threads = [threading.Thread(target=upgrade) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    empty_database.check()


def test_a_failing_migration_leaves_nothing(empty_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole upgrade is one transaction, on SQLite too."""

    def fail(_connection: object) -> None:
        raise RuntimeError("the power went out")

    monkeypatch.setattr("models_store.database._refuse_broken_references", fail)
    with pytest.raises(RuntimeError, match="power"):
        empty_database.upgrade()
    assert inspect(empty_database.engine).get_table_names() == []


def test_check_says_what_to_do_about_missing_tables(empty_database: Database) -> None:
    with pytest.raises(SchemaOutdated, match="espalier db upgrade"):
        empty_database.check()


@pytest.mark.parametrize("make_unreachable", ["sqlite", "postgresql"])
def test_check_says_that_the_database_is_unreachable(make_unreachable: str, tmp_path: Path) -> None:
    if make_unreachable == "sqlite":
        (tmp_path / "espalier.db").mkdir()
        database = Database(f"sqlite:///{tmp_path / 'espalier.db'}")
    else:
        database = Database(f"postgresql://postgres:hush@/x?host={tmp_path}")
    with pytest.raises(DatabaseUnavailable, match="cannot reach the database") as caught:
        database.check()
    assert "hush" not in str(caught.value)
