"""Swagger UI and Redoc in a real browser that can reach nothing but the service: upload a model, start a job."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.keyed import key_of, keyed_service
from tests.api.running_api import Serve, Service
from tests.api.store_side import onnx_bytes

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: tools/install_browser.sh installs it")
playwright = pytest.importorskip("playwright.sync_api")


class Watched:
    """A page, together with all that it asked for and complained about."""

    def __init__(self, page: "playwright.Page") -> None:
        self.page = page
        self.requests: list[str] = []
        self.reached: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("response", lambda response: self.reached.append(response.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda message: message.type == "error" and self.complaints.append(message.text))


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    arguments = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def watched(browser: "playwright.Browser") -> Iterator[Watched]:
    with browser.new_context(viewport={"width": 1200, "height": 1600}) as context:
        yield Watched(context.new_page())


def operation(page: "playwright.Page", name: str) -> "playwright.Locator":
    """An operation of Swagger UI, opened."""
    block = page.locator(f"[id^=operations-][id$=-{name}]")
    block.locator(".opblock-summary-control").click()
    return block


def execute(block: "playwright.Locator") -> tuple[int, dict]:
    """Press Execute; the status and the body that the page shows for it."""
    block.get_by_role("button", name="Execute").click()
    answer = block.locator(".live-responses-table .response")
    body = answer.locator(".response-col_description .highlight-code code").first
    shown = body.inner_text()
    return int(answer.locator(".response-col_status").inner_text().split()[0]), json.loads(shown)


def test_a_model_is_uploaded_and_a_job_started_by_filling_in_the_page(
    sqlite_service: Service, watched: Watched, tmp_path: Path
) -> None:
    page = watched.page
    page.goto(f"{sqlite_service.url}/docs")

    upload = operation(page, "upload_model")
    (tmp_path / "net.onnx").write_bytes(onnx_bytes())
    upload.locator("input[type=file]").set_input_files(tmp_path / "net.onnx")
    status, model = execute(upload)
    assert (status, model["name"], model["state"]) == (201, "net.onnx", "inspecting")

    sqlite_service.worker.inspect()

    look = operation(page, "get_model")
    look.get_by_placeholder("model").fill(model["id"])
    status, model = execute(look)
    assert (status, model["state"]) == (200, "ready")

    start = operation(page, "create_job")
    box = start.locator("textarea")
    spec = json.loads(box.input_value())
    box.fill(json.dumps(spec | {"model_id": model["id"]}))
    status, job = execute(start)
    assert (status, job["state"], job["model_id"]) == (202, "queued", model["id"])

    budget = sqlite_service.http.get(f"/v1/jobs/{job['id']}").json()["spec"]["budget"]
    assert {name: budget[name] for name in spec["budget"]} == spec["budget"]
    assert watched.complaints == []
    assert {url for url in watched.requests if not url.startswith(sqlite_service.url)} == set()


def test_a_mistake_shows_the_problem_and_its_hint(sqlite_service: Service, watched: Watched, tmp_path: Path) -> None:
    watched.page.goto(f"{sqlite_service.url}/docs")
    upload = operation(watched.page, "upload_dataset")
    (tmp_path / "labels.csv").write_text("image,label\n")
    upload.locator("input[type=file]").set_input_files(tmp_path / "labels.csv")
    status, body = execute(upload)
    assert (status, body["code"]) == (422, "wrong_format")
    assert "zip" in body["hint"]


def test_the_authorize_button_takes_a_key(sqlite_url: str, serve: Serve, watched: Watched) -> None:
    with keyed_service(serve, sqlite_url) as keyed:
        page = watched.page
        page.goto(f"{keyed.service.url}/docs")
        look = operation(page, "get_usage")
        status, body = execute(look)
        assert (status, body["code"]) == (401, "key_missing")
        page.get_by_role("button", name="Authorize", exact=True).click()
        page.locator(".auth-container input").fill(key_of(keyed.service))
        page.locator(".auth-container").get_by_role("button", name="Apply credentials").click()
        page.get_by_role("button", name="Close").click()
        look.get_by_role("button", name="Execute").click()
        look.locator(".live-responses-table .response-col_status", has_text="200").wait_for()


def test_redoc_shows_every_operation_and_reaches_no_other_host(sqlite_service: Service, watched: Watched) -> None:
    watched.page.goto(f"{sqlite_service.url}/redoc")
    watched.page.get_by_role("heading", name="Download a job's file").wait_for()
    own = (sqlite_service.url, f"blob:{sqlite_service.url}")
    assert [url for url in watched.reached if not url.startswith(own)] == []
    # Redoc wants to load its maker's logo; the policy of the page lets it not.
    assert all(
        "cdn.redoc.ly" in complaint and "Content Security Policy" in complaint for complaint in watched.complaints
    )
