"""Sessions that see one project only.

Every statement of such a session gets the condition that its rows belong to the project: in subqueries, updates and
deletes, too, and for tables that are part of another (their first foreign key with ON DELETE CASCADE leads to the
owner). What could escape the condition is refused: text, tables named apart from their classes, and INSERT statements.
"""

from functools import cache
from typing import cast

from sqlalchemy import ClauseElement, ColumnElement, Executable, Select, Table, TextClause, event, select
from sqlalchemy.orm import Mapper, ORMExecuteState, Session, UOWTransaction, with_loader_criteria
from sqlalchemy.sql import visitors
from sqlalchemy.sql.base import ExecutableOption

from models_store.tables import AuditEntry, Base, Owned, Project


class Unconfined(RuntimeError):
    """A statement that no project could be put on: an error of ours."""


class AppendOnly(RuntimeError):
    """What has happened cannot be changed: an error of ours."""


PROJECT = "project_id"
"""What a session's `info` has the project under."""


class ProjectSession(Session):
    """A session of the project in its `info`; its new rows are the project's, too."""


@event.listens_for(ProjectSession, "do_orm_execute")
def _confine(state: ORMExecuteState) -> None:
    tables = _tables_of(state.statement)
    if tables and (state.is_insert or not state.is_orm_statement):
        raise Unconfined(f"only queries, updates and deletes of mapped classes see one project: {state.statement}")
    if AuditEntry.__tablename__ in tables and not state.is_select:
        raise AppendOnly(f"the audit log is only added to: {state.statement}")
    criteria = _criteria(state.session.info[PROJECT])
    state.statement = state.statement.options(*(criteria[table] for table in sorted(tables)))


@event.listens_for(ProjectSession, "before_flush")
def _own(session: Session, _flush: UOWTransaction, _instances: object) -> None:
    project_id: str = session.info[PROJECT]
    if any(isinstance(row, AuditEntry) for row in (*session.dirty, *session.deleted)):
        raise AppendOnly("the audit log is only added to")
    for row in session.new:
        if isinstance(row, Owned):
            if row.project_id not in (None, project_id):
                raise Unconfined(f"{type(row).__name__} of another project")
            row.project_id = project_id


def owner(table: Table) -> tuple[str, Table | None]:
    """The column that leads to the project: `project_id` itself, or the key of the table that this one is part of.

    Raises LookupError for a table that belongs to no project.
    """
    if table is Project.__table__:
        return "id", None
    if "project_id" in table.columns:
        return "project_id", None
    for column in table.columns:
        for key in column.foreign_keys:
            if key.ondelete == "CASCADE":
                return column.name, key.column.table
    raise LookupError(
        f"{table.name} belongs to no project: derive its class from Owned, or give it a foreign key with "
        "ON DELETE CASCADE to the table that it is part of"
    )


@cache
def _criteria(project_id: str) -> dict[str, ExecutableOption]:
    """The condition on each table, by the table's name."""
    return {
        _table(mapper).name: with_loader_criteria(mapper.class_, _owned_by(project_id, mapper), include_aliases=True)
        for mapper in Base.registry.mappers
    }


def _table(mapper: Mapper[Base]) -> Table:
    assert isinstance(mapper.local_table, Table)  # noqa: S101  no class here is mapped to anything else
    return mapper.local_table


def _owned_by(project_id: str, mapper: Mapper[Base]) -> ColumnElement[bool]:
    name, parent = owner(_table(mapper))
    column: ColumnElement[str] = getattr(mapper.class_, name)
    return column == project_id if parent is None else column.in_(_ids(project_id, parent))


def _ids(project_id: str, table: Table) -> Select[str]:
    """The primary keys of the project's rows. On tables and not on classes, so as not to be confined once more."""
    (id,) = table.primary_key.columns
    name, parent = owner(table)
    column = table.columns[name]
    return select(id).where(column == project_id if parent is None else column.in_(_ids(project_id, parent)))


def _tables_of(statement: Executable) -> set[str]:
    """Names of all tables that a statement names at any depth. Raises Unconfined for SQL as text."""
    found = set()
    for element in visitors.iterate(cast(ClauseElement, statement)):
        if isinstance(element, Table):
            found.add(element.name)
        elif isinstance(element, TextClause):
            raise Unconfined(f"text is not confined to a project: {element}")
    return found
