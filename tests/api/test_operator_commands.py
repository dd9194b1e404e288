"""`espalier projects`, `usage` and `audit`, as an operator and the admin of a project type them."""

import json
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner, Result

from espalier.cli import app
from espalier.errors import RequestRefused
from models_store.documents.access import Scope
from models_store.projects import DEFAULT_PROJECT
from tests.api.keyed import Keyed, key_of, keyed_service
from tests.api.running_api import Serve


@pytest.fixture
def keyed(sqlite_url: str, serve: Serve) -> Iterator[Keyed]:
    with keyed_service(serve, sqlite_url) as keyed:
        yield keyed


def espalier(keyed: Keyed, key: str, *words: str) -> Result:
    return CliRunner().invoke(app, words, env={"ESPALIER_URL": keyed.service.url, "ESPALIER_API_KEY": key})


def printed(keyed: Keyed, key: str, *words: str) -> str:
    done = espalier(keyed, key, *words)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout.strip()


def test_a_project_from_its_making_to_its_end(keyed: Keyed) -> None:
    operator = key_of(keyed.service, DEFAULT_PROJECT, *Scope)
    project = printed(keyed, operator, "projects", "create", "vision")
    key_id, admin = printed(keyed, operator, "projects", "key", project, "their admin", "--days", "7").split()
    changed = printed(keyed, operator, "projects", "change", project, "--job-minutes", "90", "--stored-bytes", "0")
    assert changed == f"{project} enabled vision (0 bytes, 90 job minutes)"
    assert printed(keyed, operator, "projects", "list").splitlines() == [changed, f"{DEFAULT_PROJECT} enabled default"]

    usage = printed(keyed, admin, "usage").splitlines()
    assert usage[0] == f"project {project}"
    assert usage[1] == "stored bytes: 0 of 0"
    assert usage[3].endswith(": 0 of 90")
    refused = espalier(keyed, admin, "webhooks", "add", "https://example.org/")
    assert refused.exit_code == 0, "a quota of bytes does not concern webhooks"
    (entry, made) = printed(keyed, admin, "audit").splitlines()
    assert f"{key_id} create_webhook /v1/webhooks/whk_" in entry
    assert "create_project_key" in made
    assert printed(keyed, admin, "audit", "--action", "delete_model") == ""

    reset = printed(keyed, operator, "projects", "change", project, "--stored-bytes", "default", "--json")
    assert json.loads(reset)["stored_bytes_limit"] is None
    printed(keyed, operator, "projects", "change", project, "--disable")
    ended = espalier(keyed, admin, "usage").exception
    assert isinstance(ended, RequestRefused)
    assert ended.code == "key_revoked"


def test_without_the_scope_it_is_said_which_one_is_missing(keyed: Keyed) -> None:
    error = espalier(keyed, key_of(keyed.service), "projects", "list").exception
    assert isinstance(error, RequestRefused)
    assert (error.code, "instance" in error.message, bool(error.hint)) == ("scope_missing", True, True)


@pytest.mark.parametrize("limit", ["-1", "many", "1.5", ""])
def test_a_limit_is_a_number_or_the_default(keyed: Keyed, limit: str) -> None:
    done = espalier(keyed, "", "projects", "change", "prj_x", "--job-minutes", limit)
    assert done.exit_code == 2
