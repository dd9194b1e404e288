"""What lists and single things look like on the command line."""

from datetime import UTC, datetime, timedelta

import pytest
import typer

from espalier import listing
from espalier.resources import Project


def project(name: str) -> Project:
    return Project(
        id="prj_1", name=name, enabled=True, job_minutes_limit=5, created_at=datetime(2026, 11, 23, tzinfo=UTC)
    )


def test_a_row_is_a_line_whatever_its_name_holds(capsys):
    listing.rows([project("a\n\x1b[2Jb"), project("c"), project("d")], False, lambda each: each.name, 2)
    assert capsys.readouterr().out == "a\\n\\x1b[2Jb\nc\n"


def test_fields_are_lines_and_what_is_not_there_is_left_out(capsys):
    listing.fields(project("vision"), False)
    told = capsys.readouterr().out.splitlines()
    assert told == [
        "id: prj_1",
        "name: vision",
        "enabled: true",
        "job_minutes_limit: 5",
        "created_at: 2026-11-23T00:00:00.000000Z",
    ]


def test_a_time_is_of_this_zone_unless_it_says_otherwise():
    assert listing.moment("2026-11-23T08:00:00Z") == datetime(2026, 11, 23, 8, tzinfo=UTC)
    assert listing.moment("2026-11-23T08:00:00+02:00").utcoffset() == timedelta(hours=2)
    assert listing.moment("2026-11-23") == datetime(2026, 11, 23).astimezone()
    with pytest.raises(typer.BadParameter, match="2026-11-23T08:00"):
        listing.moment("yesterday")
