"""The database of all projects is at hand in a few places only; endpoints have that of their caller's project."""

import ast
from pathlib import Path

APP = Path(__file__).resolve().parents[2] / "app"
MAY = {
    "access/caller.py",  # looks for the key
    "dependencies.py",  # confines it
    "health/endpoints.py",
    "jobs/events.py",  # is given one
    "hooks/bodies.py",  # looks for the pipeline
    "hooks/endpoints.py",  # looks for its project
    "jobs/log_lines.py",  # is given one
    "main.py",  # opens it
    "plane.py",
    "projects/endpoints.py",  # with the scope `instance`
    "sharing/endpoints.py",  # looks for the link's project
}


def test_endpoints_use_the_plane_of_their_caller() -> None:
    reach = {"WholePlane", "running_plane", "Database"}
    found = {
        str(path.relative_to(APP))
        for path in APP.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Name) and node.id in reach
    }
    assert found == MAY, "take PlaneDep, ReadSession, WriteSession or CreationDep: they see the caller's project only"
