"""/v1/methods, and jobs that name methods wrongly."""

from models_store.catalogue import catalogue
from tests.api.answers import problem
from tests.api.running_api import Service

MODEL = "mdl_" + "0" * 32


def test_methods_are_listed_with_their_options(sqlite_service: Service) -> None:
    items = sqlite_service.http.get("/v1/methods").raise_for_status().json()["items"]
    assert len(items) == len(catalogue().methods)
    l1 = next(item for item in items if (item["kind"], item["name"]) == ("criterion", "l1"))
    assert "ICLR 2017" in l1["paper"]
    assert l1["options"]["properties"]["aggregation"]["default"] == "mean"
    criteria = sqlite_service.http.get("/v1/methods", params={"kind": "criterion"}).json()["items"]
    assert {item["kind"] for item in criteria} == {"criterion"}
    problem(sqlite_service.http.get("/v1/methods", params={"kind": "x"}), 422, "invalid_request")


def test_a_job_that_names_what_is_not_there_is_refused(sqlite_service: Service) -> None:
    body = {
        "model_id": MODEL,
        "budget": {"macs_ratio": 0.5},
        "pruning": {"criterion": "l3", "allocation": "global", "allocation_options": {"k": 1}},
    }
    refusal = problem(sqlite_service.http.post("/v1/jobs", json=body), 422, "invalid_request")
    reasons = {fault["location"]: fault["message"] for fault in refusal["errors"]}
    assert reasons["body.pruning.criterion"].startswith("there is no criterion 'l3'; choose one of: ")
    assert "no option 'k'" in reasons["body.pruning.allocation_options.k"]


def test_the_openapi_document_names_the_methods(sqlite_service: Service) -> None:
    schemas = sqlite_service.http.get("/openapi.json").json()["components"]["schemas"]
    named, left_out = schemas["Pruning"]["properties"]["criterion"]["anyOf"]
    assert "l1" in named["enum"]
    assert left_out == {"type": "null"}
