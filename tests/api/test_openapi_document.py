"""The OpenAPI document and the pages made of it: complete, consistent, and without a word from elsewhere."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from models_store.documents.job_spec import NEW_JOB
from tests.api.running_api import Service


@pytest.fixture
def document(sqlite_service: Service) -> dict[str, Any]:
    return sqlite_service.http.get("/openapi.json").raise_for_status().json()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for child in value.values():
            yield from references(child)
    elif isinstance(value, list):
        for child in value:
            yield from references(child)


def test_every_operation_is_described_and_named_once(document: dict[str, Any]) -> None:
    names = []
    for where, operation in operations(document):
        assert operation["summary"], where
        assert operation["description"], where
        assert operation["tags"], where
        names.append(operation["operationId"])
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z_]+", name) for name in names)
    assert len(names) == 66


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for reference in references(document):
        prefix, name = reference.rsplit("/", 1)
        assert prefix == "#/components/schemas"
        assert name in schemas


def test_no_two_paths_differ_in_a_parameters_name_only(document: dict[str, Any]) -> None:
    shapes = [re.sub(r"{[^}]*}", "{}", path) for path in document["paths"]]
    assert len(shapes) == len(set(shapes))


def test_every_error_is_a_problem_document(document: dict[str, Any]) -> None:
    for where, operation in operations(document):
        for status, response in operation["responses"].items():
            if status.startswith("4") or (status.startswith("5") and not where.endswith("/readyz")):
                assert list(response["content"]) == ["application/problem+json"], (where, status)
    assert "HTTPValidationError" not in document["components"]["schemas"]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/datasets"])
def test_an_upload_is_a_form_with_a_file_and_empty_boxes(document: dict[str, Any], path: str) -> None:
    content = document["paths"][path]["post"]["requestBody"]["content"]
    assert list(content) == ["multipart/form-data"]
    schema = content["multipart/form-data"]["schema"]
    boxes = schema["properties"]
    assert next(iter(boxes)) == "file"
    assert (boxes["file"]["type"], boxes["file"]["format"]) == ("string", "binary")
    assert schema["required"] == ["file"]
    for name, box in boxes.items():
        assert box["description"], name
        assert "default" in box or name == "file" or box["examples"] == [""], name


def test_the_examples_of_a_job_are_valid(document: dict[str, Any]) -> None:
    examples = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    assert len(examples) == 4
    for example in examples.values():
        NEW_JOB.validate_python(example["value"])


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/docs/start.js"])
def test_the_pages_name_no_other_host(sqlite_service: Service, path: str) -> None:
    response = sqlite_service.http.get(path).raise_for_status()
    assert "//" not in re.sub(r" // .*", "", response.text)
    for reference in re.findall(r'(?:src|href|spec-url)="([^"]+)"', response.text):
        if not reference.startswith("data:"):
            sqlite_service.http.get(f"/{reference}").raise_for_status()


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_pages_policy_allows_this_origin_only(sqlite_service: Service, path: str) -> None:
    policy = sqlite_service.http.get(path).headers["Content-Security-Policy"]
    sources = {source for directive in policy.split("; ") for source in directive.split()[1:]}
    assert sources <= {"'none'", "'self'", "'unsafe-inline'", "data:", "blob:"}
    assert "script-src 'self';" in policy
