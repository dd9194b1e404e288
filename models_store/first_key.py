"""`python -m models_store.first_key`: an API key straight from the database, for whoever has no key yet.

Prints a JSON object with `id` and `key`. With `--if-none`, makes one only where no key with the scope `instance` could
be used, and prints nothing otherwise.
"""

import argparse
import json
import sys
from datetime import UTC, datetime, timedelta

from models_store.api_keys import ApiKeyRepository
from models_store.database import Database
from models_store.documents.access import Scope
from models_store.errors import DatabaseUnavailable, SchemaOutdated
from models_store.projects import DEFAULT_PROJECT, ProjectRepository
from models_store.settings import StoreSettings


def main() -> None:
    options = _options()
    database = Database(StoreSettings().database_url)
    try:
        database.check()
    except (DatabaseUnavailable, SchemaOutdated) as error:
        sys.exit(f"{error}")
    with database.session(read_only=True) as session:
        projects = ProjectRepository(session)
        project = projects.named(options.project) if options.project else projects.get(DEFAULT_PROJECT)
        if project is None:
            sys.exit(f"there is no project {options.project}: POST /v1/projects makes one")
        if options.if_none and ApiKeyRepository(session).any_with(Scope.INSTANCE):
            return
    expires_at = datetime.now(UTC) + timedelta(days=options.days) if options.days else None
    with database.of_project(project.id).session() as session:
        key, text = ApiKeyRepository(session).add(options.name, options.scope or list(Scope), expires_at)
    print(json.dumps({"id": key.id, "key": text}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m models_store.first_key", description=__doc__)
    parser.add_argument("--name", default="first key", help="for people")
    parser.add_argument("--scope", action="append", type=Scope, choices=list(Scope), help="all of them if left out")
    parser.add_argument("--project", default="", help="its name; the default project if left out")
    parser.add_argument("--days", type=int, default=0, help="valid for that long; for ever if left out")
    parser.add_argument("--if-none", action="store_true", help="only where there is no usable instance key")
    return parser.parse_args()


if __name__ == "__main__":
    main()
