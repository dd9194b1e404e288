"""What the generated OpenAPI document lacks: the schema of errors, and parameters that are absent and never null."""

from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import FastAPI

from app.errors import Problem

NULL = {"type": "null"}


def install(app: FastAPI, *, keyed: bool) -> None:
    """Make the application's document the completed one; without `keyed`, no operation asks for a key in it."""
    app.openapi = partial(_completed, app.openapi, keyed)  # type: ignore[method-assign]


def _completed(openapi: Callable[[], dict[str, Any]], keyed: bool) -> dict[str, Any]:
    document = openapi()
    if not keyed:
        document["components"].pop("securitySchemes", None)
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    document["components"]["schemas"].update({**problem.pop("$defs", {}), "Problem": problem})
    for path in document["paths"].values():
        for operation in path.values():
            if not keyed:
                operation.pop("security", None)
            for parameter in operation.get("parameters", ()):
                parameter["schema"] = _without_null(parameter["schema"])
    return document


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A query or a header has no null: a parameter that is not given is left out."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != NULL]
    if len(kinds) != 1:
        return schema
    return {**{key: value for key, value in schema.items() if key != "anyOf"}, **kinds[0]}
