"""/v1/jobs from the request to the end, on both databases; the worker's part is played through the repositories."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.jobs import service as jobs
from models_store.database import Database
from models_store.documents.event import ESTIMATE_STAGES, STAGES
from models_store.documents.job_spec import Budget, JobSpec
from models_store.jobs import JobRepository
from models_store.models import ModelRepository
from models_store.projects import DEFAULT_PROJECT
from tests.api.answers import problem
from tests.api.running_api import Service
from tests.api.store_side import BAD_MODEL, DATASET_INSPECTION, MODEL_INSPECTION, onnx_bytes

UNKNOWN_JOB = "job_" + "0" * 32
BUDGET = {"macs_ratio": 0.5}


def test_a_job_is_accepted_with_every_default_spelt_out(service: Service) -> None:
    model_id = service.ready_model()
    response = service.http.post("/v1/jobs", json={"model_id": model_id, "budget": BUDGET, "label": "first"})
    assert response.status_code == 202, response.text
    job = response.json()
    assert response.headers["Location"] == f"/v1/jobs/{job['id']}" == job["links"]["self"]
    assert (job["kind"], job["state"], job["label"], job["attempt"]) == ("prune", "queued", "first", 0)
    assert (job["model_id"], job["dataset_id"], job["error"]) == (model_id, None, None)
    assert [stage["name"] for stage in job["stages"]] == list(STAGES)
    assert job["spec"]["pruning"]["criterion"] == "l2"
    assert {name: value for name, value in job["spec"]["budget"].items() if name in BUDGET} == BUDGET
    assert service.http.get(response.headers["Location"]).json() == job
    claim = service.worker.claim()
    assert (claim.job_id, claim.spec) == (job["id"], job["spec"])


def test_the_kind_of_job_chooses_the_form_of_its_body(service: Service) -> None:
    model_id = service.ready_model()
    job = service.http.post("/v1/jobs", json={"kind": "estimate", "model_id": model_id}).raise_for_status().json()
    assert job["kind"] == "estimate"
    assert [stage["name"] for stage in job["stages"]] == list(ESTIMATE_STAGES)
    assert job["spec"]["budget"]["macs_ratio"] == 0.5
    listed = service.http.get("/v1/jobs", params={"kind": "estimate"}).json()["items"]
    assert [each["id"] for each in listed] == [job["id"]]

    refused = service.http.post("/v1/jobs", json={"kind": "estimate", "model_id": model_id, "keep_ratios": [2]})
    assert problem(refused, 422, "invalid_request")["errors"][0]["location"] == "body.keep_ratios.0"
    refused = service.http.post("/v1/jobs", json={"model_id": model_id})
    assert problem(refused, 422, "invalid_request")["errors"][0]["location"] == "body.budget"
    for kind in ("inspect", "guess", 3, None, [1]):
        problem(service.http.post("/v1/jobs", json={"kind": kind, "model_id": model_id}), 422, "invalid_request")


def test_a_sweep_is_a_job_with_points(service: Service) -> None:
    model_id = service.ready_model()
    npz = b"PK\x03\x04" + bytes(22) + b"\x05\x00\x00\x00x.npyPK\x05\x06" + bytes(18)
    dataset_id = service.http.put("/v1/datasets/data", content=npz).raise_for_status().json()["id"]
    service.worker.inspect()
    body = {"kind": "sweep", "model_id": model_id, "dataset_id": dataset_id, "label": "front"}
    budgets = [{"macs_ratio": 0.5}, {"macs_ratio": 0.3}]
    sweep = service.http.post("/v1/jobs", json=body | {"budgets": budgets}).raise_for_status().json()
    assert (sweep["kind"], sweep["state"], sweep["parent_id"]) == ("sweep", "queued", None)
    assert [(stage["name"], stage["state"]) for stage in sweep["stages"]] == [
        ("points", "running"),
        ("front", "pending"),
    ]
    points = service.http.get("/v1/jobs", params={"parent_id": sweep["id"]}).json()["items"]
    assert [point["spec"]["budget"]["macs_ratio"] for point in points] == [0.3, 0.5]
    assert {point["parent_id"] for point in points} == {sweep["id"]}
    refused = problem(
        service.http.post("/v1/jobs", json=body | {"budgets": [{"macs_ratio": 2}]}), 422, "invalid_request"
    )
    assert "body.budgets.0.macs_ratio" in [fault["location"] for fault in refused["errors"]]
    without = {name: value for name, value in body.items() if name != "dataset_id"} | {"budgets": budgets}
    refused = problem(service.http.post("/v1/jobs", json=without), 422, "invalid_request")
    assert refused["errors"][0]["location"] == "body.dataset_id"

    service.http.post(f"/v1/jobs/{sweep['id']}/cancel").raise_for_status()
    states = {service.http.get(f"/v1/jobs/{each['id']}").json()["state"] for each in (sweep, *points)}
    assert states == {"cancelled"}


def test_a_job_needs_a_model_that_is_ready(service: Service) -> None:
    model_id = service.upload_model()
    body = {"model_id": model_id, "budget": BUDGET}
    assert "ready" in problem(service.http.post("/v1/jobs", json=body), 409, "model_not_ready")["hint"]
    service.worker.inspect(reject=True)
    refusal = problem(service.http.post("/v1/jobs", json=body), 409, "model_rejected")
    assert BAD_MODEL.message in refusal["detail"]
    problem(service.http.post("/v1/jobs", json=body | {"model_id": "mdl_" + "0" * 32}), 404, "model_not_found")
    assert service.http.get("/v1/jobs").json()["items"] == []


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        ({"budget": {"max_accuracy_drop": 0.1}}, "budget.max_accuracy_drop"),
        ({"pruning": {"criterion": "taylor"}}, "pruning.criterion"),
        ({"random_masks": {"count": 4}}, "random_masks"),
    ],
)
def test_what_needs_labels_is_refused_where_there_are_none(service: Service, asked, place) -> None:
    body = {"model_id": service.ready_model(), "budget": BUDGET}
    npz = b"PK\x03\x04" + bytes(22) + b"\x05\x00\x00\x00x.npyPK\x05\x06" + bytes(18)
    body["dataset_id"] = service.http.put("/v1/datasets/data", content=npz).raise_for_status().json()["id"]
    service.worker.inspect(dataset=DATASET_INSPECTION.model_copy(update={"classes": (), "samples_per_class": ()}))
    refusal = problem(service.http.post("/v1/jobs", json=body | asked), 422, "no_labels")
    assert place in refusal["detail"]
    assert service.http.post("/v1/jobs", json=body).status_code == 202
    told = service.http.post("/v1/jobs", json=body | asked | {"data": {"labels": False}})
    assert told.status_code == 422
    assert place.split(".")[-1] in told.text


def test_a_job_needs_a_dataset_that_is_ready(service: Service) -> None:
    model_id = service.ready_model()
    npz = b"PK\x03\x04" + bytes(22) + b"\x05\x00\x00\x00x.npyPK\x05\x06" + bytes(18)
    dataset_id = service.http.put("/v1/datasets/data", content=npz).raise_for_status().json()["id"]
    body = {"model_id": model_id, "budget": BUDGET, "dataset_id": dataset_id}
    problem(service.http.post("/v1/jobs", json=body), 409, "dataset_not_ready")
    service.worker.inspect()
    job = service.http.post("/v1/jobs", json=body)
    assert job.status_code == 202, job.text
    problem(service.http.delete(f"/v1/datasets/{dataset_id}"), 409, "dataset_in_use")
    problem(service.http.post("/v1/jobs", json=body | {"dataset_id": "dst_" + "0" * 32}), 404, "dataset_not_found")


def test_a_model_deleted_at_the_same_moment_is_no_failure_of_the_service(postgresql_url: str) -> None:
    database = Database(postgresql_url).of_project(DEFAULT_PROJECT)
    with database.session() as session:
        model_id = ModelRepository(session).add("net", "onnx", "0" * 64, 1, "key").id
        ModelRepository(session).mark_ready(model_id, MODEL_INSPECTION.model_dump(mode="json"), "key")
    with pytest.raises(jobs.InputGone), database.session() as session:  # noqa: PT012 - it may appear at the commit
        seen = ModelRepository(session).get(model_id)  # held, so that the session goes on knowing it
        assert seen is not None
        with database.session() as another:
            ModelRepository(another).delete(model_id)
        jobs.create(session, JobSpec(model_id=model_id, budget=Budget(macs_ratio=0.5)))
    database.dispose()


@pytest.mark.parametrize(
    ("change", "location"),
    [
        ({"budget": {"macs_ratio": 0}}, "body.budget.macs_ratio"),
        ({"budget": {"macs_ratio": 2}}, "body.budget.macs_ratio"),
        ({"budget": {"macs_ratio": "half"}}, "body.budget.macs_ratio"),
        ({"budget": {}}, "body.budget"),
        ({"budget": {"latency_ms": 0}}, "body.budget.latency_ms"),
        ({"budget": {"max_accuracy_drop": 0.01}}, "body.budget.max_accuracy_drop"),
        ({"budget": None}, "body.budget"),
        ({"model_id": "net.onnx"}, "body.model_id"),
        ({"dataset_id": ""}, "body.dataset_id"),
        ({"pruning": {"criterion": "best"}}, "body.pruning.criterion"),
        ({"finetuning": {"epoch": 3}}, "body.finetuning.epoch"),
        ({"data": {"mean": [0.5, 0.5], "std": [1]}}, "body"),
        ({"data": {"std": [0]}}, "body.data.std.0"),
        ({"kind": "inspect"}, "body.kind"),
        ({"label": "a\0b"}, "body.label"),
        ({"label": "\ud800"}, "body.label"),
        ({"pruning": {"exclude": ["conv", "\ud800"]}}, "body.pruning.exclude.1"),
        ({"pruning": {"exclude": ["a\0b"]}}, "body.pruning.exclude.0"),
        ({"seed": 2**63}, "body.seed"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused_place_by_place(
    sqlite_service: Service, change: dict[str, object], location: str
) -> None:
    body = {"model_id": "mdl_" + "0" * 32, "budget": BUDGET} | change
    headers = {"Content-Type": "application/json"}
    response = sqlite_service.http.post("/v1/jobs", content=json.dumps(body), headers=headers)
    refusal = problem(response, 422, "invalid_request")
    assert location in [fault["location"] for fault in refusal["errors"]]
    assert location in refusal["detail"]


@pytest.mark.parametrize(
    ("content", "content_type", "word"),
    [
        (b"{", "application/json", "JSON"),
        (b"[]", "application/json", "dictionary"),
        (b"", "application/json", "required"),
        (b'{"model_id": "mdl_x"}', "application/x-www-form-urlencoded", "Content-Type: application/json"),
        (b'{"data": {"mean": [NaN]}}', "application/json", "body.data.mean"),
        (
            b'{"pruning": {"allocation": "heuristic", "allocation_options": {"window": NaN}}}',
            "application/json",
            "finite",
        ),
        (b'{"pruning": {"criterion_options": {"\\ud800": 1}}}', "application/json", "criterion_options"),
        (b"\xff\xfe", "application/json", ""),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(
    sqlite_service: Service, content: bytes, content_type: str, word: str
) -> None:
    response = sqlite_service.http.post("/v1/jobs", content=content, headers={"Content-Type": content_type})
    assert response.status_code in (400, 422), response.text
    body = problem(response, response.status_code, response.json()["code"])
    assert word in body["detail"] + body["hint"] + str(body.get("errors"))


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_too_large_for_json_is_refused(sqlite_service: Service, announced: bool) -> None:
    content = b'"' + b"x" * 2**21 + b'"'
    response = sqlite_service.http.post(
        "/v1/jobs",
        content=content if announced else iter([content]),
        headers={"Content-Type": "application/json"},
    )
    problem(response, 413, "body_too_large")


def test_unknown_jobs_are_404(service: Service) -> None:
    for job_id in (UNKNOWN_JOB, "1", "%00"):
        for path in ("", "/events", "/report", "/report.html", "/artifacts", "/artifacts/pruned.onnx"):
            problem(service.http.get(f"/v1/jobs/{job_id}{path}"), 404, "job_not_found")
        problem(service.http.post(f"/v1/jobs/{job_id}/cancel"), 404, "job_not_found")


def test_a_queued_job_is_cancelled_at_once_and_twice_does_no_harm(service: Service) -> None:
    job_id = service.start_job()
    for _ in range(2):
        response = service.http.post(f"/v1/jobs/{job_id}/cancel")
        assert (response.status_code, response.json()["state"]) == (202, "cancelled")
    assert response.json()["finished_at"] is not None


def test_a_running_job_is_asked_to_stop(service: Service) -> None:
    job_id = service.start_job()
    claim = service.worker.claim()
    assert service.http.post(f"/v1/jobs/{job_id}/cancel").json()["state"] == "cancelling"
    with service.database.session() as session:
        assert JobRepository(session).heartbeat(claim).cancel_requested
        JobRepository(session).cancelled(claim)
    assert service.http.get(f"/v1/jobs/{job_id}").json()["state"] == "cancelled"


def test_an_ended_job_cannot_be_cancelled(service: Service) -> None:
    job_id = service.start_job()
    service.worker.fail(service.worker.claim())
    problem(service.http.post(f"/v1/jobs/{job_id}/cancel"), 409, "job_ended")
    job = service.http.get(f"/v1/jobs/{job_id}").json()
    assert job["state"] == "failed"
    assert job["error"] == BAD_MODEL.model_dump(mode="json")


def test_jobs_are_listed_newest_first_by_what_is_asked_for(service: Service) -> None:
    first = service.start_job(label="a")
    model_id = service.http.get(f"/v1/jobs/{first}").json()["model_id"]
    second = service.start_job(label="b")
    service.http.post(f"/v1/jobs/{first}/cancel")

    def listed(**query: object) -> list[str]:
        return [job["id"] for job in service.http.get("/v1/jobs", params=query).raise_for_status().json()["items"]]

    assert listed() == [second, first]
    assert listed(state="cancelled") == [first]
    assert listed(label="b") == [second]
    assert listed(model_id=model_id) == [first]
    assert listed(limit=1) == [second]
    assert listed(limit=1, after=second) == [first]
    assert len(listed(kind="inspect")) == 2
    for wrong in ({"limit": 0}, {"limit": 201}, {"after": "x"}, {"state": "lost"}, {"label": "\0"}):
        problem(service.http.get("/v1/jobs", params=wrong), 422, "invalid_request")


def test_many_requests_at_once_are_all_served(service: Service) -> None:
    model_id = service.ready_model()
    with ThreadPoolExecutor(16) as pool:
        jobs = pool.map(
            lambda number: service.http.post(
                "/v1/jobs", json={"model_id": model_id, "budget": BUDGET, "seed": number}
            ).raise_for_status(),
            range(64),
        )
        uploads = pool.map(
            lambda number: service.http.put(f"/v1/models/{number}", content=onnx_bytes()).raise_for_status(), range(16)
        )
        ids = {response.json()["id"] for response in (*jobs, *uploads)}
    assert len(ids) == 80
    listed = service.http.get("/v1/jobs", params={"limit": 100}).json()["items"]
    assert sorted(job["spec"]["seed"] for job in listed) == list(range(64))
