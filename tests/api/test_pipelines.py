"""/v1/pipelines and /v1/hooks: saved jobs, gates that say why, events of GitHub, GitLab and others, commit statuses."""

import hashlib
import hmac
import json
import runpy
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest
from standardwebhooks import Webhook

from app.hooks import bodies
from models_store.documents.inspection import TensorInfo
from models_store.documents.pipeline import Gate
from models_store.documents.report import Report
from models_store.gates import judge
from models_store.targets import Rules
from tests.api.answers import problem
from tests.api.keyed import keyed_service
from tests.api.processes import ROOT
from tests.api.reports import report_document
from tests.api.running_api import Serve, Service
from tests.api.store_side import DATASET_INSPECTION, MODEL_INSPECTION
from worker.deliveries import deliver_all

SHA = "0123456789abcdef0123456789abcdef01234567"
GATES = [
    {"metric": "accuracy_drop", "max": 0.02},
    {"metric": "macs_ratio", "max": 0.55},
    {"metric": "speedup", "min": 1},
]
ANYWHERE = Rules(http=True, private_networks=True)


class StatusHost:
    """The example's stand-in for GitHub and GitLab."""

    def __init__(self, file: Path) -> None:
        self._file = file
        example = runpy.run_path(str(ROOT / "examples" / "commit_status_server.py"))
        self.server = example["server"](0, file)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def statuses(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self._file.read_text().splitlines()] if self._file.exists() else []


@pytest.fixture
def host(tmp_path: Path) -> Iterator[StatusHost]:
    host = StatusHost(tmp_path / "statuses.jsonl")
    yield host
    host.server.shutdown()
    host.server.server_close()


@pytest.fixture
def ci(database_url: str, serve: Serve) -> Iterator[Service]:
    """A service that may call this machine, on SQLite and on PostgreSQL in turn."""
    options = {"webhook_http": True, "webhook_private_networks": True, "public_url": "https://espalier.example"}
    with serve(database_url, **options) as service:
        yield service


def pipeline(service: Service, **changes: object) -> dict[str, object]:
    """Its gates are about accuracy, and its job has images to measure that on."""
    job = {"budget": {"macs_ratio": 0.5}, "dataset_id": service.ready_dataset()}
    body = {"name": "night | ly", "model_name": "net", "job": job, "gates": GATES} | changes
    response = service.http.post("/v1/pipelines", json=body)
    assert response.status_code == 201, response.text
    return response.json()


def start(service: Service, saved: dict[str, object], **body: object) -> dict[str, object]:
    response = service.http.post(f"/v1/pipelines/{saved['id']}/runs", json=body)
    assert response.status_code == 202, response.text
    return response.json()


def look(service: Service, run: dict[str, object]) -> dict[str, object]:
    return service.http.get(run["links"]["self"]).raise_for_status().json()


def finish(service: Service, **report: object) -> None:
    service.worker.succeed(service.worker.claim(), report_document(**report))


def send_github(
    service: Service, saved: dict[str, object], event: str, payload: object, **headers: str
) -> httpx.Response:
    body = json.dumps(payload).encode()
    signature = "sha256=" + hmac.new(str(saved["secret"]).encode(), body, hashlib.sha256).hexdigest()
    sent = {"X-GitHub-Event": event, "X-Hub-Signature-256": signature, "Content-Type": "application/json"} | headers
    return service.http.post(saved["hooks"]["github"], content=body, headers=sent)


def signed(saved: dict[str, object], body: bytes, message: str = "msg_1", at: datetime | None = None) -> dict[str, str]:
    at = at or datetime.now(UTC)
    signature = Webhook(str(saved["secret"])).sign(message, at, body.decode())
    return {"webhook-id": message, "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature}


def suite_of(service: Service, run: dict[str, object]) -> ElementTree.Element:
    suite = ElementTree.fromstring(service.http.get(run["links"]["junit"]).content).find("testsuite")  # noqa: S314  ours
    assert suite is not None
    return suite


PUSH = {"ref": "refs/heads/main", "after": SHA, "deleted": False, "repository": {"full_name": "owner/repo"}}
PULL = {
    "action": "synchronize",
    "pull_request": {"head": {"ref": "feature", "sha": SHA}},
    "repository": {"full_name": "owner/repo"},
}
GITLAB_PUSH = {"ref": "refs/heads/main", "after": SHA, "project": {"path_with_namespace": "group/sub/repo"}}


def test_a_good_model_passes_and_a_bad_one_fails_with_reasons(ci: Service) -> None:
    model_id = ci.ready_model()
    saved = pipeline(ci)
    assert saved["secret"].startswith("whsec_")
    shown = ci.http.get(f"/v1/pipelines/{saved['id']}").json()
    assert shown == {key: value for key, value in saved.items() if key != "secret"}
    good = start(ci, saved)
    assert (good["state"], good["gates"]) == ("running", [])
    job = ci.http.get(good["links"]["job"]).json()
    assert (job["model_id"], job["label"]) == (model_id, "night | ly")
    finish(ci)
    good = look(ci, good)
    assert (good["state"], good["reason"]) == ("passed", "All 3 gates passed.")
    assert good["finished_at"] is not None
    bad = start(ci, saved, model_id=model_id)
    finish(ci, top1=0.8, speedup=0.9)
    bad = look(ci, bad)
    assert bad["state"] == "failed"
    assert [verdict["passed"] for verdict in bad["gates"]] == [False, True, False]
    assert "2 of 3 gates failed" in bad["reason"]
    assert "accuracy_drop is 0.11; it does not hold that accuracy_drop <= 0.02" in bad["reason"]
    suite = suite_of(ci, bad)
    assert (suite.get("name"), suite.get("tests"), suite.get("failures"), suite.get("errors")) == (
        "night | ly", "3", "2", "0",
    )  # fmt: skip
    failures = [case.find("failure").get("message") for case in suite if case.find("failure") is not None]
    assert failures == [verdict["reason"] for verdict in bad["gates"] if not verdict["passed"]]
    summary = ci.http.get(bad["links"]["summary"])
    assert summary.headers["Content-Type"].startswith("text/markdown")
    assert "night \\| ly: failed" in summary.text
    assert summary.text.count("❌") == 3
    assert "| peak memory | 30.0 MB | 20.0 MB |" in summary.text
    assert "| latency, batch 1 (p50) | 2.000 ms | 2.222 ms |" in summary.text
    listed = ci.http.get(f"/v1/pipelines/{saved['id']}/runs", params={"state": "failed"}).json()["items"]
    assert [run["id"] for run in listed] == [bad["id"]]


def test_a_job_without_a_report_is_an_error_and_not_a_failed_gate(ci: Service) -> None:
    ci.ready_model()
    saved = pipeline(ci)
    failed, cancelled = start(ci, saved), None
    ci.worker.fail(ci.worker.claim())
    cancelled = start(ci, saved)
    ci.http.post(f"{cancelled['links']['job']}/cancel").raise_for_status()
    for run in (failed, cancelled):
        assert look(ci, run)["state"] == "errored"
        suite = suite_of(ci, run)
        assert (suite.get("errors"), suite.get("failures")) == ("1", "0")
    assert "Node 'n' is unknown." in look(ci, failed)["reason"]


def test_a_run_goes_on_with_a_job_that_is_tried_again(ci: Service, host: StatusHost) -> None:
    ci.ready_model()
    saved = pipeline(ci, commit_status={"host": "github", "base_url": host.url, "token": "t"})
    run = send_github(ci, saved, "push", PUSH).json()["run"]
    ci.worker.fail(ci.worker.claim())
    deliver_all(ci.database, ANYWHERE, threading.Event())
    assert look(ci, run)["state"] == "errored"
    ci.http.post(f"{run['links']['job']}/retry").raise_for_status()
    again = look(ci, run)
    assert (again["state"], again["reason"], again["finished_at"]) == ("running", "", None)
    deliver_all(ci.database, ANYWHERE, threading.Event())
    finish(ci)
    deliver_all(ci.database, ANYWHERE, threading.Event())
    again = look(ci, run)
    assert (again["state"], again["reason"]) == ("passed", "All 3 gates passed.")
    assert [each["state"] for each in host.statuses()] == ["error", "pending", "success"]


def test_a_run_needs_a_model(ci: Service) -> None:
    saved = pipeline(ci)
    path = f"/v1/pipelines/{saved['id']}/runs"
    assert "net" in problem(ci.http.post(path, json={}), 409, "no_model")["detail"]
    ci.upload_model()
    problem(ci.http.post(path, json={}), 409, "no_model")
    ci.worker.inspect()
    assert ci.http.post(path, json={}).status_code == 202
    problem(ci.http.post(path, json={"model_id": "mdl_" + "0" * 32}), 404, "model_not_found")
    both = {"name": "x", "model_name": "net", "job": {"model_id": "mdl_" + "0" * 32, "budget": {"macs_ratio": 0.5}}}
    problem(ci.http.post("/v1/pipelines", json=both), 422, "invalid_request")
    for gate in ({"metric": "top1"}, {"metric": "top1", "min": 0, "batch_size": 1}, {"metric": "beauty", "min": 0}):
        body = {"name": "x", "job": {"budget": {"macs_ratio": 0.5}}, "gates": [gate]}
        problem(ci.http.post("/v1/pipelines", json=body), 422, "invalid_request")


@pytest.mark.parametrize(
    ("gate", "job", "place", "told"),
    [
        ({"metric": "top1", "min": 85}, {}, "0", "at most 1; it is a share"),
        ({"metric": "accuracy_drop", "max": -2}, {}, "0", "never as low"),
        ({"metric": "macs_ratio", "min": 1.5}, {}, "0", "at most 1"),
        ({"metric": "latency_ms", "max": 0}, {}, "0", "never as low"),
        ({"metric": "macs_ratio", "max": 0}, {}, "0", "never as low"),
        ({"metric": "speedup", "min": 2, "max": 1}, {}, "0", "min is above max"),
        ({"metric": "speedup", "min": 1, "batch_size": 8}, {}, "0.batch_size", "add 8 to job.measuring.batch_sizes"),
        ({"metric": "top1", "min": 0.9}, {"data": {"labels": False}}, "0.metric", "data.labels false"),
    ],
)
def test_a_gate_that_no_run_can_pass_is_refused(
    sqlite_service: Service, gate: dict[str, object], job: dict[str, object], place: str, told: str
) -> None:
    body = {"name": "x", "job": {"budget": {"macs_ratio": 0.5}} | job, "gates": [gate]}
    refusal = problem(sqlite_service.http.post("/v1/pipelines", json=body), 422, "invalid_request")
    assert [fault["location"] for fault in refusal["errors"]] == [f"body.gates.{place}"]
    assert told in refusal["detail"]


@pytest.mark.parametrize(
    ("gate", "job"),
    [
        ({"metric": "speedup", "min": 1, "batch_size": 8}, {"measuring": {"batch_sizes": [1, 8]}}),
        (
            {"metric": "latency_ms", "max": 5, "batch_size": 8},
            {"budget": {"latency_ratio": 0.5, "latency_batch_size": 8}},
        ),
        ({"metric": "top1", "min": 1}, {}),
        ({"metric": "accuracy_drop", "max": 0}, {}),
        ({"metric": "unmet_budgets", "max": 0}, {}),
        ({"metric": "size_ratio", "max": 1.1}, {}),
    ],
)
def test_a_gate_that_some_run_can_pass_is_saved(
    sqlite_service: Service, gate: dict[str, object], job: dict[str, object]
) -> None:
    body = {"name": "x", "job": {"budget": {"macs_ratio": 0.5}} | job, "gates": [gate]}
    assert sqlite_service.http.post("/v1/pipelines", json=body).status_code == 201


def test_a_run_without_the_data_that_its_gates_are_about_is_refused(sqlite_service: Service) -> None:
    service = sqlite_service
    service.ready_model()
    without = {"job": {"budget": {"macs_ratio": 0.5}}}
    accuracy = pipeline(service, **without, gates=[{"metric": "top1", "min": 0.8}])
    error = pipeline(service, **without, gates=[{"metric": "output_error", "max": 0.1}])
    labelled = service.ready_dataset()
    bare = service.ready_dataset(DATASET_INSPECTION.model_copy(update={"classes": (), "samples_per_class": ()}))

    def told(saved: dict[str, object], **body: str) -> str:
        refusal = problem(service.http.post(f"/v1/pipelines/{saved['id']}/runs", json=body), 409, "unsuitable_inputs")
        return str(refusal["detail"])

    assert "the run has no dataset" in told(accuracy)
    assert "its dataset has none" in told(accuracy, dataset_id=bare)
    assert "the run has no dataset" in told(error)
    assert "data.labels to false" in told(error, dataset_id=labelled)
    assert service.http.get("/v1/jobs").json()["items"] == []
    start(service, accuracy, dataset_id=labelled)
    start(service, error, dataset_id=bare)


def test_a_run_whose_model_does_not_take_the_batch_of_a_gate_is_refused(sqlite_service: Service) -> None:
    inputs = (TensorInfo(name="image", dtype="float", shape=(4, 3, 8, 8)),)
    sqlite_service.upload_model()
    sqlite_service.worker.inspect(model=MODEL_INSPECTION.model_copy(update={"inputs": inputs}))
    gate = {"metric": "speedup", "min": 1}
    saved = pipeline(sqlite_service, gates=[gate | {"batch_size": 1}])
    path = f"/v1/pipelines/{saved['id']}/runs"
    refusal = problem(sqlite_service.http.post(path, json={}), 409, "unsuitable_inputs")
    assert "gates.0.batch_size" in refusal["detail"]
    assert "fixed batch size of the run's model, 4" in refusal["detail"]
    start(sqlite_service, pipeline(sqlite_service, gates=[gate]))


def test_a_deleted_pipeline_is_gone_and_its_jobs_are_not(ci: Service) -> None:
    ci.ready_model()
    saved = pipeline(ci)
    run = start(ci, saved)
    assert ci.http.delete(f"/v1/pipelines/{saved['id']}").status_code == 204
    problem(ci.http.get(f"/v1/pipelines/{saved['id']}"), 404, "pipeline_not_found")
    problem(ci.http.get(run["links"]["self"]), 404, "pipeline_not_found")
    assert ci.http.get(run["links"]["job"]).json()["state"] == "queued"


def test_github_events_start_runs_once(ci: Service) -> None:
    ci.ready_model()
    saved = pipeline(ci, branches=["main", "feat*"])
    assert send_github(ci, saved, "ping", {"zen": "x"}).json() == {
        "run": None, "ignored": "ping events start nothing",
    }  # fmt: skip
    first = send_github(ci, saved, "push", PUSH)
    assert first.status_code == 202, first.text
    run = first.json()["run"]
    assert run["trigger"] == {
        "source": "github", "event": "push", "repository": "owner/repo", "ref": "refs/heads/main", "sha": SHA,
    }  # fmt: skip
    replay = send_github(ci, saved, "push", PUSH, **{"X-GitHub-Delivery": "another"})
    assert (replay.status_code, replay.json()["run"]["id"]) == (200, run["id"])
    assert send_github(ci, saved, "pull_request", PULL).status_code == 202
    for event, payload in (
        ("push", PUSH | {"ref": "refs/heads/other"}),
        ("push", PUSH | {"after": "0" * 40, "deleted": True}),
        ("pull_request", PULL | {"action": "labeled"}),
        ("issues", {}),
    ):
        ignored = send_github(ci, saved, event, payload)
        assert (ignored.status_code, ignored.json()["run"], bool(ignored.json()["ignored"])) == (200, None, True)
    problem(send_github(ci, saved, "push", {"ref": 1}), 422, "unreadable_event")
    problem(send_github(ci, saved, "push", [1]), 422, "unreadable_event")
    wrong = send_github(ci, saved, "push", PUSH, **{"X-Hub-Signature-256": "sha256=" + "0" * 64})
    problem(wrong, 401, "bad_signature")
    problem(ci.http.post(saved["hooks"]["github"], json=PUSH), 401, "bad_signature")
    assert len(ci.http.get(f"/v1/pipelines/{saved['id']}/runs").json()["items"]) == 2


def test_what_is_wrong_with_a_signed_event_is_told(sqlite_service: Service) -> None:
    saved = pipeline(sqlite_service)
    wrong_field = json.dumps({"type": "build.done", "data": {"model_id": "net"}}).encode()
    for body, told in (
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (wrong_field, "model_id: String should match pattern"),
        (b'{"data": {}}', "'type' is missing"),
    ):
        answer = sqlite_service.http.post(saved["hooks"]["generic"], content=body, headers=signed(saved, body))
        assert told in problem(answer, 422, "unreadable_event")["detail"]
    odd = send_github(sqlite_service, saved, "pull_request", PULL | {"action": "\ud800"})
    assert (odd.status_code, odd.json()["ignored"]) == (200, r"the action is '\ud800'")


def test_a_push_of_many_commits_is_read_and_memory_stays_bounded(ci: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    ci.ready_model()
    saved = pipeline(ci)
    assert send_github(ci, saved, "push", PUSH | {"commits": ["x" * 1000] * 3000}).status_code == 202
    monkeypatch.setattr(bodies, "MAX_EVENT_BYTES", 2**20)
    too_large = send_github(ci, saved, "push", PUSH | {"commits": "x" * 2**20})
    problem(too_large, 413, "event_too_large")
    assert "espalier ci" in too_large.json()["hint"]
    monkeypatch.setattr(bodies, "MAX_HELD_BYTES", 1000)
    busy = send_github(ci, saved, "push", PUSH | {"commits": "x" * 2000})
    problem(busy, 503, "too_many_events")
    assert busy.headers["Retry-After"] == "5"
    unknown = ci.http.post("/v1/hooks/github/pip_" + "0" * 32, content=b"x" * 2000)
    problem(unknown, 404, "pipeline_not_found")  # before any of it is read
    assert bodies.held.bytes == 0


def test_gitlab_and_generic_events_are_signed_recent_and_heard_once(ci: Service) -> None:
    model_id = ci.ready_model()
    saved = pipeline(ci)
    push, url = json.dumps(GITLAB_PUSH).encode(), saved["hooks"]["gitlab"]
    event = {"X-Gitlab-Event": "Push Hook"}
    first = ci.http.post(url, content=push, headers=event | signed(saved, push))
    assert (first.status_code, first.json()["run"]["trigger"]["repository"]) == (202, "group/sub/repo")
    again = ci.http.post(url, content=push, headers=event | signed(saved, push))
    assert (again.status_code, again.json()["run"]["id"]) == (200, first.json()["run"]["id"])
    merge = {
        "object_attributes": {"action": "update", "source_branch": "x", "last_commit": {"id": SHA}},
        "project": {"path_with_namespace": "g/r"},
    }
    for change, status in (({}, 200), ({"oldrev": SHA}, 202)):
        merge["object_attributes"] |= change
        body = json.dumps(merge).encode()
        headers = {"X-Gitlab-Event": "Merge Request Hook"} | signed(saved, body, f"msg_{status}")
        assert ci.http.post(url, content=body, headers=headers).status_code == status
    generic = json.dumps({"type": "build.done", "data": {"model_id": model_id, "sha": SHA, "ref": "main"}}).encode()
    headers = signed(saved, generic)
    third = ci.http.post(saved["hooks"]["generic"], content=generic, headers=headers)
    assert (third.status_code, third.json()["run"]["trigger"]["sha"]) == (202, SHA)
    for bad in (
        {},
        signed(saved, generic, at=datetime.now(UTC) - timedelta(minutes=6)),
        signed(saved, generic, at=datetime.now(UTC) + timedelta(minutes=6)),
        headers | {"webhook-id": "msg_2"},
        headers | {"webhook-signature": "v1,!"},
        headers | {"webhook-signature": "nonsense"},
        {"X-Gitlab-Token": str(saved["secret"])},
    ):
        for source in ("generic", "gitlab"):
            problem(ci.http.post(saved["hooks"][source], content=generic, headers=bad), 401, "bad_signature")
    problem(ci.http.post("/v1/hooks/other/" + saved["id"]), 422, "invalid_request")
    problem(ci.http.post("/v1/hooks/github/pip_" + "0" * 32), 404, "pipeline_not_found")


@pytest.mark.parametrize(
    ("kind", "path", "context", "words"),
    [
        ("github", f"/repos/owner/repo/statuses/{SHA}", "context", ("pending", "failure")),
        ("gitlab", f"/projects/owner/repo/statuses/{SHA}", "name", ("running", "failed")),
    ],
)
def test_the_commit_is_told_from_start_to_end(
    ci: Service, host: StatusHost, kind: str, path: str, context: str, words: tuple[str, str]
) -> None:
    ci.ready_model()
    status = {"host": kind, "base_url": host.url, "token": "ghp_secret"}
    if kind == "gitlab":
        status["repository"] = "owner/repo"
    saved = pipeline(ci, commit_status=status)
    assert "ghp_secret" not in json.dumps(saved)
    assert ci.http.get("/v1/webhooks").json()["items"] == []
    run = send_github(ci, saved, "push", PUSH).json()["run"]
    deliver_all(ci.database, ANYWHERE, threading.Event())
    finish(ci, top1=0.1)
    deliver_all(ci.database, ANYWHERE, threading.Event())
    told = host.statuses()
    assert [(each["path"], each["state"]) for each in told] == [(path, words[0]), (path, words[1])]
    assert {each[context] for each in told} == {"espalier/night | ly"}
    assert told[1]["description"].startswith("1 of 3 gates failed: accuracy_drop is 0.81")
    assert told[1]["target_url"] == f"https://espalier.example/v1/jobs/{run['job_id']}/report.html"
    assert ci.http.delete(f"/v1/pipelines/{saved['id']}").status_code == 204


@pytest.mark.parametrize("seconds", [3600, 0])
def test_where_keys_are_asked_for_the_report_opens_from_the_commit(
    sqlite_url: str, serve: Serve, host: StatusHost, seconds: int
) -> None:
    public = "https://espalier.example"
    options = {"webhook_http": True, "webhook_private_networks": True, "public_url": public}
    with keyed_service(serve, sqlite_url, **options) as keyed, keyed.as_project() as ci:
        ci.ready_model()
        status = {"host": "github", "base_url": host.url, "token": "t"}
        saved = pipeline(ci, commit_status=status, gates=[], report_link_s=seconds)
        assert saved["report_link_s"] == seconds
        run = send_github(ci, saved, "push", PUSH).json()["run"]
        ci.worker.succeed(ci.worker.claim(), report_document(), {"report.html": b"<title>report</title>"})
        deliver_all(ci.database, ANYWHERE, threading.Event())
        target = host.statuses()[0]["target_url"].removeprefix(public)
        in_summary = ci.http.get(run["links"]["summary"]).text.partition(f"[Report]({public}")[2].partition(")")[0]
        for path in (target, in_summary):
            page = keyed.service.http.get(path)  # as a browser, without a key
            if seconds:
                assert page.text == "<title>report</title>"
            else:
                problem(page, 401, "key_missing")


def test_a_status_that_waits_is_replaced_by_the_next(ci: Service, host: StatusHost) -> None:
    ci.ready_model()
    saved = pipeline(ci, commit_status={"host": "github", "base_url": host.url, "token": "t"})
    send_github(ci, saved, "push", PUSH)
    finish(ci)
    deliver_all(ci.database, ANYWHERE, threading.Event())
    assert [each["state"] for each in host.statuses()] == ["success"]


def test_a_status_host_inside_the_network_is_refused(sqlite_service: Service) -> None:
    body = {
        "name": "x",
        "job": {"budget": {"macs_ratio": 0.5}},
        "commit_status": {"host": "github", "base_url": "https://169.254.169.254", "token": "t"},
    }
    problem(sqlite_service.http.post("/v1/pipelines", json=body), 422, "target_not_allowed")


@pytest.mark.parametrize(
    ("gate", "passed", "word"),
    [
        ({"metric": "top1", "min": 0.9}, True, "0.9"),
        ({"metric": "changed_labels", "max": 0.01}, False, "0.05"),
        ({"metric": "params_ratio", "max": 0.5}, True, "0.5"),
        ({"metric": "size_ratio", "max": 0.4}, False, "0.5"),
        ({"metric": "size_bytes", "max": 2000}, True, "2000"),
        ({"metric": "latency_ms", "max": 1.0, "batch_size": 1}, True, "latency_ms at batch 1 <= 1"),
        ({"metric": "latency_ms", "max": 1.0, "batch_size": 32}, False, "not measured at batch 32"),
        ({"metric": "unmet_budgets", "max": 0}, True, "0"),
        ({"metric": "macs_ratio", "min": 0.6, "max": 0.7}, False, "0.6 <= macs_ratio <= 0.7"),
    ],
)
def test_every_metric_has_a_value_and_a_reason(gate: dict[str, object], passed: bool, word: str) -> None:
    (verdict,) = judge([Gate.model_validate(gate)], Report.model_validate(report_document()))
    assert verdict.passed == passed
    assert word in verdict.reason


@pytest.mark.parametrize(
    ("gate", "passed"),
    [
        ({"metric": "accuracy_drop", "max": 0.01}, True),
        ({"metric": "accuracy_drop", "max": 0.00999}, False),
        ({"metric": "accuracy_drop", "min": 0.01, "max": 0.01}, True),
        ({"metric": "macs_ratio", "min": 0.50001}, False),
    ],
)
def test_a_bound_that_is_met_exactly_holds_as_a_budget_does(gate: dict[str, object], passed: bool) -> None:
    (verdict,) = judge([Gate.model_validate(gate)], Report.model_validate(report_document(top1_before=0.92, top1=0.91)))
    assert verdict.passed == passed


def test_what_was_not_measured_fails() -> None:
    document = report_document() | {"accuracy": None, "latency": []}
    for metric in ("top1", "accuracy_drop", "changed_labels", "speedup", "latency_ms"):
        (verdict,) = judge([Gate(metric=metric, min=-1e9)], Report.model_validate(document))
        assert (verdict.passed, verdict.value) == (False, None)
        assert "not measured" in verdict.reason
